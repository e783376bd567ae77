-- Each host has a continuous loop of its own; numbers are given across all.

-- name: iterations.begin
-- Note that an iteration of this host begins, under the next number.
INSERT INTO iterations (iteration, token, started_at, plan, history_path, host)
VALUES ((SELECT coalesce(max(iteration), 0) + 1 FROM iterations), :token, :started_at, :plan, :history_path, :here);

-- name: iterations.open
-- Give this host's iterations that have not ended, oldest first.
SELECT iteration, token, started_at, plan, cycle, history_path FROM iterations
WHERE host = :here AND written = 0 AND status IS NULL ORDER BY iteration;

-- name: iterations.unwritten
-- Give this host's rows that are not in their file, oldest first.
SELECT iteration, history_path, line FROM iterations
WHERE host = :here AND written = 0 AND line IS NOT NULL ORDER BY iteration;

-- name: iterations.recent
-- Give this host's newest iterations that have ended, newest first.
SELECT status, ended_at, next_run_at, archive_new FROM iterations WHERE host = :here AND status IS NOT NULL
ORDER BY iteration DESC LIMIT :limit;

-- name: iterations.last_line
-- Give the row of this host's newest iteration that has ended.
SELECT line FROM iterations WHERE host = :here AND status IS NOT NULL ORDER BY iteration DESC LIMIT 1;

-- name: iterations.failures_in_a_row
-- Count the failures since this host's last iteration that ended well; interrupted ones neither break nor lengthen the row.
SELECT count(*) AS failures FROM iterations
WHERE host = :here AND status IN ('failed', 'timed_out', 'prereq_failed', 'not_started', 'lost')
AND iteration > coalesce(
    (SELECT max(iteration) FROM iterations WHERE host = :here AND status IN ('success', 'degraded')), 0);

-- name: iterations.totals
-- Count this host's iterations by status.
SELECT status, count(*) AS iterations FROM iterations WHERE host = :here AND status IS NOT NULL GROUP BY status;
