-- name: reflection.failures
-- Give the newest cycles that failed after the last success of their job, newest first.
SELECT cycle, job, state, ended_at, kloros_part(result, 'reason') AS reason FROM cycles AS failed
WHERE state IN ('failed', 'timed_out', 'lost') AND cause <> 'direct' AND job NOT IN ('reflection', 'wake')
    AND cycle > coalesce((SELECT max(cycle) FROM cycles WHERE job = failed.job AND state = 'succeeded'), 0)
ORDER BY cycle DESC LIMIT :limit;

-- name: reflection.recent
-- Give the cycles that ended last, newest first.
SELECT cycle, job, state, cause, ended_at, kloros_part(result, 'reason') AS reason FROM cycles
WHERE ended_at IS NOT NULL AND job <> 'wake' ORDER BY cycle DESC LIMIT :limit;
