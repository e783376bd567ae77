-- name: reflection.failures
-- Give the newest cycles that failed after the last success of their job, newest first.
SELECT cycle, job, state, ended_at, json_extract(result, '$.reason') AS reason FROM cycles AS failed
WHERE state IN ('failed', 'timed_out', 'lost') AND cause <> 'direct' AND job NOT IN ('reflection', 'wake')
    AND cycle > coalesce((SELECT max(cycle) FROM cycles WHERE job = failed.job AND state = 'succeeded'), 0)
ORDER BY cycle DESC LIMIT :limit;

-- name: reflection.parked
-- Give the promotions that wait for a person after failures, those parked last first.
SELECT stem, failures, reason, changed_at FROM promotions WHERE state = 'parked' ORDER BY changed_at DESC, stem LIMIT :limit;

-- name: reflection.escrow
-- Give the accepted promotions that wait for a person's approval, newest first.
SELECT entry, stem, rule, created_at FROM escrow WHERE status = 'pending_review' ORDER BY created_at DESC, entry LIMIT :limit;

-- name: reflection.degraded
-- Give the newest iterations of the loop, newest first, with whether each left a new archive.
SELECT iteration, archive_new, ended_at FROM iterations
WHERE status IS NOT NULL AND archive_new IS NOT NULL ORDER BY iteration DESC LIMIT :limit;

-- name: reflection.recent
-- Give the cycles that ended last, newest first.
SELECT cycle, job, state, cause, ended_at, json_extract(result, '$.reason') AS reason FROM cycles
WHERE ended_at IS NOT NULL AND job <> 'wake' ORDER BY cycle DESC LIMIT :limit;

-- name: reflection.answers
-- Give the promotions that were answered last, newest first.
SELECT stem, state, reason, changed_at FROM promotions
WHERE state IN ('accepted', 'rejected') ORDER BY changed_at DESC, stem LIMIT :limit;

-- name: reflection.stale
-- Give whether the loop calls its archives stale.
SELECT value FROM counters WHERE name = 'kloros_loop_archives_stale' AND value > 0;
