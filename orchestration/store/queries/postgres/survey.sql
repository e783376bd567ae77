-- name: survey.beats
-- Give what this host's ticks of a span did: one row for the ticks of one minute and boot that did the same, oldest first.
SELECT min(started_at) AS first, max(started_at) AS last, boot_id, decision, exit_code,
    max(CASE WHEN decision = 'skipped' THEN findings END) AS findings
FROM ticks WHERE host = :here AND started_at >= :since AND started_at < :until
GROUP BY substr(started_at, 1, 16), boot_id, decision, exit_code ORDER BY first, exit_code, decision, boot_id;

-- name: survey.newest_start
-- Give when this host's newest tick started.
SELECT started_at FROM ticks WHERE host = :here ORDER BY started_at DESC, tick DESC LIMIT 1;

-- name: survey.cycles
-- Give the newest cycles as lists show them, newest first.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    kloros_part(result, 'reason') AS reason, telemetry
FROM cycles LEFT JOIN products USING (cycle) ORDER BY cycle DESC LIMIT :limit;

-- name: survey.failed
-- Give the newest cycles that did not succeed as lists show them, newest first; turns of agents are told with their triggers.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    kloros_part(result, 'reason') AS reason, telemetry
FROM cycles LEFT JOIN products USING (cycle)
WHERE state IN ('failed', 'timed_out', 'lost') AND job <> 'wake' ORDER BY cycle DESC LIMIT :limit;

-- name: survey.queues
-- Give how much waits and since when, of what no counter says; copies as this host is to make them.
SELECT
    (SELECT count(*) FROM intents WHERE filed = 0 AND status = 'pending') AS intents,
    (SELECT min(seen_at) FROM intents WHERE filed = 0 AND status = 'pending') AS intents_since,
    (SELECT count(*) FROM federations WHERE host = :here AND done_at IS NULL) AS federation,
    (SELECT min(asked_at) FROM federations WHERE host = :here AND done_at IS NULL) AS federation_since,
    (SELECT count(*) FROM escrow WHERE status = 'pending_review') AS escrow,
    (SELECT min(created_at) FROM escrow WHERE status = 'pending_review') AS escrow_since;

-- name: survey.advice
-- Give the hints of the newest PHASE that a runner took, if it was given any (see phase/hints.py).
SELECT cycle, value FROM (
    SELECT cycle FROM cycles WHERE job = 'phase' AND started_at IS NOT NULL ORDER BY cycle DESC LIMIT 1) AS newest
JOIN facts ON host = '' AND name = 'phase.hints.' || lpad(cycle::text, greatest(5, length(cycle::text)), '0');
