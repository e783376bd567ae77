-- name: cycles.watched
-- Give the cycles that are queued or running, turns of agents too, and turns that have ended and are not settled; oldest first.
SELECT * FROM cycles WHERE settled_at IS NULL AND (job = 'wake' OR state IN ('queued', 'running')) ORDER BY cycle;

-- name: cycles.claim
-- Take a queued cycle for a runner of this host; changes no row when it is queued no more, or for other hosts. Notes the
-- baseline whose files are in place here.
UPDATE cycles SET state = 'running', started_at = :now, runner = :runner, host = :here, baseline_began = coalesce(
    (SELECT version FROM baseline_files WHERE host = :here ORDER BY version DESC LIMIT 1), 0)
WHERE cycle = :cycle AND state = 'queued'
    AND CASE WHEN hosts = '' THEN true ELSE :here IN (SELECT json_array_elements_text(hosts::json)) END;

-- name: cycles.claim_next
-- Take the oldest queued cycle that this host may run, but for jobs in :unable (a JSON list) and turns of agents. A row that
-- another runner is taking at this moment is passed over: who claims needs no lock of the scope, and waits for nobody.
UPDATE cycles SET state = 'running', started_at = :now, runner = :runner, host = :here, baseline_began = coalesce(
    (SELECT version FROM baseline_files WHERE host = :here ORDER BY version DESC LIMIT 1), 0)
WHERE cycle = (
    SELECT cycle FROM cycles
    WHERE state = 'queued' AND job <> 'wake' AND executor = 'local'
        AND CASE WHEN hosts = '' THEN true ELSE :here IN (SELECT json_array_elements_text(hosts::json)) END
        AND job NOT IN (SELECT json_array_elements_text(CAST(:unable AS json)))
    ORDER BY cycle LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING cycle;

-- name: cycles.hosts_ticked
-- Give when each host of the scope ticked last, by the server's clock.
SELECT host, kloros_instant(last_tick_at) AS last_tick_at FROM hosts ORDER BY host;

-- name: cycles.finish
-- End a cycle, provided it still stands where the event was allowed. Notes the newest baseline. What an agent was told by its
-- turn, and its variables, are forgotten; a turn that never began leaves nothing to settle.
UPDATE cycles SET state = :state, ended_at = :now, result = :result,
    settled_at = CASE WHEN job = 'wake' AND :expected = 'queued' THEN :now END,
    origin = CASE job WHEN 'wake' THEN kloros_without(origin, 'prompt', 'variables') ELSE origin END,
    baseline_ended = (SELECT coalesce(max(version), 0) FROM baseline_versions)
WHERE cycle = :cycle AND state = :expected;

-- name: cycles.over
-- Give settled cycles still on this host's disk that are neither among the scope's last N, nor young, nor pinned; the longest
-- ended first. PHASE and D-REAM are each counted apart. One that no host ever took left nothing, and any host may say so.
SELECT cycle FROM cycles
WHERE pruned_at IS NULL AND settled_at IS NOT NULL AND ended_at < :before AND host IN (:here, '')
  AND cycle <= CASE job
      WHEN 'phase' THEN (SELECT cycle FROM cycles WHERE job = 'phase' ORDER BY cycle DESC LIMIT 1 OFFSET :keep_last)
      WHEN 'dream' THEN (SELECT cycle FROM cycles WHERE job = 'dream' ORDER BY cycle DESC LIMIT 1 OFFSET :keep_last)
      ELSE (SELECT max(cycle) FROM cycles) - :keep_last END
  AND cycle NOT IN (SELECT cycle FROM pins)
  AND (:held_too <> 0 OR cycle NOT IN (
      SELECT CAST(held AS BIGINT) FROM json_array_elements_text(coalesce(
          (SELECT value FROM facts WHERE host = :here AND name = 'retention.held'), '[]')::json) AS held))
ORDER BY ended_at, cycle LIMIT nullif(CAST(:limit AS BIGINT), -1);
