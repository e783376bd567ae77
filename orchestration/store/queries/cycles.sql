-- name: cycles.enqueue
-- Queue one cycle under the number given, else under the next one; a number that is taken is refused.
INSERT INTO cycles (cycle, job, state, token, cause, origin, command, working_dir, timeout_seconds, executor, hosts,
    phase_date, queued_at)
VALUES (
    coalesce(:number, (SELECT coalesce(max(cycle), 0) + 1 FROM cycles)),
    :job, 'queued', :token, :cause, :origin, :command, :working_dir, :timeout_seconds, :executor, :hosts,
    :phase_date, :queued_at
);

-- name: cycles.number_of
-- Give the number that a queued token received.
SELECT cycle FROM cycles WHERE token = :token;

-- name: cycles.active
-- Give the cycles that are queued or running, oldest first; turns of agents, which have a lane of their own, left out.
SELECT * FROM cycles WHERE state IN ('queued', 'running') AND job <> 'wake' ORDER BY cycle;

-- name: cycles.watched
-- Give the cycles that are queued or running, turns of agents too, and turns that have ended and are not settled; oldest first.
-- Every tick asks it, so it reads what is not settled and not every turn there ever was.
SELECT * FROM cycles INDEXED BY cycles_unsettled
WHERE settled_at IS NULL AND (job = 'wake' OR state IN ('queued', 'running')) ORDER BY cycle;

-- name: cycles.exclusive
-- Give the cycles that keep every other from starting: those whose consequences do not stand yet, oldest first.
SELECT * FROM cycles WHERE settled_at IS NULL AND job <> 'wake' ORDER BY cycle;

-- name: cycles.unsettled
-- Give the finished cycles whose consequences no tick has applied yet, oldest first; turns of agents have none.
SELECT * FROM cycles
WHERE settled_at IS NULL AND state NOT IN ('queued', 'running') AND job <> 'wake' ORDER BY cycle;

-- name: cycles.get
-- Give one cycle.
SELECT * FROM cycles WHERE cycle = :cycle;

-- name: cycles.of_token
-- Give the cycle of a token.
SELECT * FROM cycles WHERE token = :token;

-- name: cycles.recent
-- Give the newest cycles.
SELECT * FROM cycles ORDER BY cycle DESC LIMIT :limit;

-- name: cycles.last_queued
-- Give the newest cycle that was queued by an instant, settled or not, but for the turns of agents.
SELECT * FROM cycles WHERE queued_at <= :at AND job <> 'wake' ORDER BY cycle DESC LIMIT 1;

-- name: cycles.claim
-- Take a queued cycle for a runner; changes no row when it is queued no more. Notes the baseline whose files are in place.
UPDATE cycles SET state = 'running', started_at = :now, runner = :runner, baseline_began = coalesce(
    (SELECT version FROM baseline_versions WHERE written = 1 ORDER BY version DESC LIMIT 1), 0)
WHERE cycle = :cycle AND state = 'queued';

-- name: cycles.claim_next
-- Take the oldest queued cycle for a runner of this host, but for jobs in :unable (a JSON list) and turns of agents.
UPDATE cycles SET state = 'running', started_at = :now, runner = :runner, baseline_began = coalesce(
    (SELECT version FROM baseline_versions WHERE written = 1 ORDER BY version DESC LIMIT 1), 0)
WHERE cycle = (
    SELECT cycle FROM cycles
    WHERE state = 'queued' AND job <> 'wake' AND executor = 'local' AND job NOT IN (SELECT value FROM json_each(:unable))
    ORDER BY cycle LIMIT 1)
RETURNING cycle;

-- name: cycles.hosts_ticked
-- Give when each host of the scope ticked last; nothing where a host is alone.
SELECT host, last_tick_at FROM host_ticks ORDER BY host;

-- name: cycles.note_runner
-- Note anew who runs a running cycle, and on what.
UPDATE cycles SET runner = :runner WHERE cycle = :cycle AND state = 'running';

-- name: cycles.finish
-- End a cycle, provided it still stands where the event was allowed. Notes the newest baseline. What an agent was told by its
-- turn, and its variables, are forgotten; a turn that never began leaves nothing to settle.
UPDATE cycles SET state = :state, ended_at = :now, result = :result,
    settled_at = CASE WHEN job = 'wake' AND :expected = 'queued' THEN :now END,
    origin = CASE job WHEN 'wake' THEN json_remove(origin, '$.prompt', '$.variables') ELSE origin END,
    baseline_ended = (SELECT coalesce(max(version), 0) FROM baseline_versions)
WHERE cycle = :cycle AND state = :expected;

-- name: cycles.forget
-- Free the number of a finished cycle.
DELETE FROM cycles WHERE cycle = :cycle AND state NOT IN ('queued', 'running');

-- name: cycles.settle
-- Note that the consequences of a finished cycle have been applied.
UPDATE cycles SET settled_at = :now WHERE cycle = :cycle AND settled_at IS NULL;

-- name: cycles.ask_cancel
-- Ask the runner to end a cycle; the first asking counts.
UPDATE cycles SET cancel_asked_at = :now
WHERE cycle = :cycle AND state IN ('queued', 'running') AND cancel_asked_at IS NULL;

-- name: cycles.ended_for_cause
-- Give the newest ended cycles that one cause asked for, newest first.
SELECT state, ended_at FROM cycles
WHERE job = :job AND cause = :cause AND ended_at IS NOT NULL ORDER BY cycle DESC LIMIT :limit;

-- name: cycles.of_date
-- Give the PHASE cycles that answer one local date, newest first.
SELECT * FROM cycles WHERE phase_date = :phase_date ORDER BY cycle DESC;

-- name: cycles.last_succeeded
-- Give the newest succeeded cycle of a job.
SELECT * FROM cycles WHERE job = :job AND state = 'succeeded' ORDER BY cycle DESC LIMIT 1;

-- name: cycles.over
-- Give settled cycles still on disk that are neither among the last N, nor young, nor pinned; the longest ended first.
-- PHASE and D-REAM are each counted apart: reflections, and the loop's iterations, are many and push none of them out.
-- By the index cycles_on_disk it reads what is old, and not every cycle there ever was.
SELECT cycle FROM cycles
WHERE pruned_at IS NULL AND settled_at IS NOT NULL AND ended_at < :before
  AND cycle <= CASE job
      WHEN 'phase' THEN (SELECT cycle FROM cycles WHERE job = 'phase' ORDER BY cycle DESC LIMIT 1 OFFSET :keep_last)
      WHEN 'dream' THEN (SELECT cycle FROM cycles WHERE job = 'dream' ORDER BY cycle DESC LIMIT 1 OFFSET :keep_last)
      ELSE (SELECT max(cycle) FROM cycles) - :keep_last END
  AND cycle NOT IN (SELECT cycle FROM pins)
  AND (:held_too OR cycle NOT IN (
      SELECT value FROM json_each(coalesce((SELECT value FROM facts WHERE name = 'retention.held'), '[]'))))
ORDER BY ended_at, cycle LIMIT :limit;

-- name: cycles.prune
-- Note that a cycle's folder and bundle have been removed.
UPDATE cycles SET pruned_at = :now WHERE cycle = :cycle AND pruned_at IS NULL;
