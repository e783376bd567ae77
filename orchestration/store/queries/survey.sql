-- name: survey.beats
-- Give what the ticks of a span did: one row for the ticks of one minute and boot that did the same, oldest first.
SELECT min(started_at) AS first, max(started_at) AS last, boot_id, decision, exit_code,
    max(CASE WHEN decision = 'skipped' THEN findings END) AS findings
FROM ticks WHERE started_at >= :since AND started_at < :until
GROUP BY substr(started_at, 1, 16), boot_id, decision, exit_code ORDER BY first, exit_code, decision, boot_id;

-- name: survey.newest_start
-- Give when the newest tick started.
SELECT started_at FROM ticks ORDER BY started_at DESC, tick DESC LIMIT 1;

-- name: survey.cycles
-- Give the newest cycles as lists show them, newest first.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    json_extract(result, '$.reason') AS reason, telemetry
FROM cycles LEFT JOIN products USING (cycle) ORDER BY cycle DESC LIMIT :limit;

-- name: survey.active
-- Give the queued and running cycles as lists show them, oldest first; with what Slurm says of those that it has.
SELECT cycle, job, cycles.state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds, NULL AS telemetry,
    CASE executor WHEN 'slurm' THEN coalesce('Slurm job ' || job_id || ': ' || slurm_jobs.state || ' ', '') || coalesce(
        slurm_jobs.reason, '') END AS reason
FROM cycles LEFT JOIN slurm_jobs USING (cycle) WHERE cycles.state IN ('queued', 'running') ORDER BY cycle;

-- name: survey.failed
-- Give the newest cycles that did not succeed as lists show them, newest first; turns of agents are told with their triggers.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    json_extract(result, '$.reason') AS reason, telemetry
FROM cycles LEFT JOIN products USING (cycle)
WHERE state IN ('failed', 'timed_out', 'lost') AND job <> 'wake' ORDER BY cycle DESC LIMIT :limit;

-- name: survey.ended
-- Give what figures need of the newest cycles that have ended, newest first; turns of agents left out.
SELECT state, started_at, ended_at, telemetry
FROM cycles LEFT JOIN products USING (cycle) WHERE ended_at IS NOT NULL AND job <> 'wake' ORDER BY cycle DESC LIMIT :limit;

-- name: survey.unacked
-- Give the promotions remembered without an answer, those seen first before the others.
SELECT stem, first_seen_at FROM promotions WHERE state = 'unacked' ORDER BY first_seen_at, stem LIMIT :limit;

-- name: survey.queues
-- Give how much waits and since when, of what no counter says.
SELECT
    (SELECT count(*) FROM intents WHERE filed = 0 AND status = 'pending') AS intents,
    (SELECT min(seen_at) FROM intents WHERE filed = 0 AND status = 'pending') AS intents_since,
    (SELECT count(*) FROM federations WHERE done_at IS NULL) AS federation,
    (SELECT min(asked_at) FROM federations WHERE done_at IS NULL) AS federation_since,
    (SELECT count(*) FROM escrow WHERE status = 'pending_review') AS escrow,
    (SELECT min(created_at) FROM escrow WHERE status = 'pending_review') AS escrow_since;

-- name: survey.escrow
-- Give the changes that wait for a person, the oldest first.
SELECT entry, kind, stem, target, cycle, rule, changes, before, fitness, emitted_by, created_at, expires_at
FROM escrow WHERE status = 'pending_review' ORDER BY created_at, entry LIMIT :limit;

-- name: survey.last_verdict
-- Give the verdict on the newest version of the baseline that has one.
SELECT version, verdict, before, after, change, reason, decided_at
FROM baseline_verdicts ORDER BY version DESC LIMIT 1;

-- name: survey.verdicts
-- Give the verdicts on the versions from one on.
SELECT version, verdict, before, after, change, reason, decided_at FROM baseline_verdicts WHERE version >= :version;

-- name: survey.advice
-- Give the hints of the newest PHASE that a runner took, if it was given any (see phase/hints.py).
SELECT cycle, value FROM (
    SELECT cycle FROM cycles WHERE job = 'phase' AND started_at IS NOT NULL ORDER BY cycle DESC LIMIT 1)
JOIN facts ON name = printf('phase.hints.%05d', cycle);
