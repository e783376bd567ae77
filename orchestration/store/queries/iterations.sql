-- name: iterations.begin
-- Note that an iteration begins, under the next number.
INSERT INTO iterations (iteration, token, started_at, plan, history_path)
VALUES ((SELECT coalesce(max(iteration), 0) + 1 FROM iterations), :token, :started_at, :plan, :history_path);

-- name: iterations.number_of
-- Give the number that a token received.
SELECT iteration FROM iterations WHERE token = :token;

-- name: iterations.plan
-- Note what an iteration has found out before its command, and the cycle that runs it.
UPDATE iterations SET plan = :plan, cycle = :cycle WHERE iteration = :iteration;

-- name: iterations.end
-- End an iteration with its row of the history, once.
UPDATE iterations
SET status = :status, ended_at = :ended_at, next_run_at = :next_run_at, archive_new = :archive_new, line = :line, plan = NULL
WHERE iteration = :iteration AND status IS NULL;

-- name: iterations.open
-- Give the iterations that have not ended, oldest first.
SELECT iteration, token, started_at, plan, cycle, history_path FROM iterations WHERE written = 0 AND status IS NULL
ORDER BY iteration;

-- name: iterations.unwritten
-- Give the rows that are not in their file, oldest first; asked by line, for by status SQLite reads the whole table.
SELECT iteration, history_path, line FROM iterations WHERE written = 0 AND line IS NOT NULL ORDER BY iteration;

-- name: iterations.written
-- Note that a row is in its file.
UPDATE iterations SET written = 1 WHERE iteration = :iteration;

-- name: iterations.recent
-- Give the newest iterations that have ended, newest first.
SELECT status, ended_at, next_run_at, archive_new FROM iterations WHERE status IS NOT NULL
ORDER BY iteration DESC LIMIT :limit;

-- name: iterations.last_line
-- Give the row of the newest iteration that has ended.
SELECT line FROM iterations WHERE status IS NOT NULL ORDER BY iteration DESC LIMIT 1;

-- name: iterations.failures_in_a_row
-- Count the failures since the last iteration that ended well; interrupted ones neither break nor lengthen the row.
SELECT count(*) AS failures FROM iterations
WHERE status IN ('failed', 'timed_out', 'prereq_failed', 'not_started', 'lost')
AND iteration > max(
    coalesce((SELECT iteration FROM iterations WHERE status = 'success' ORDER BY iteration DESC LIMIT 1), 0),
    coalesce((SELECT iteration FROM iterations WHERE status = 'degraded' ORDER BY iteration DESC LIMIT 1), 0)
);

-- name: iterations.totals
-- Count the iterations by status.
SELECT status, count(*) AS iterations FROM iterations WHERE status IS NOT NULL GROUP BY status;
