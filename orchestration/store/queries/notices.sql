-- name: notices.last_tick
-- Give when a tick last decided anything, in seconds since the epoch.
SELECT value FROM counters WHERE name = 'kloros_orchestrator_last_tick_timestamp_seconds';

-- name: notices.last_iteration
-- Give when an iteration of the loop last ended without failing.
SELECT ended_at FROM (SELECT ended_at FROM iterations WHERE status = 'success' ORDER BY iteration DESC LIMIT 1)
UNION ALL
SELECT ended_at FROM (SELECT ended_at FROM iterations WHERE status = 'degraded' ORDER BY iteration DESC LIMIT 1)
ORDER BY ended_at DESC LIMIT 1;

-- name: notices.last_cycle
-- Give when a cycle of the runner, which runs all but the loop's, last succeeded.
SELECT ended_at FROM (
    SELECT ended_at FROM cycles WHERE job = 'phase' AND state = 'succeeded' ORDER BY cycle DESC LIMIT 1)
UNION ALL
SELECT ended_at FROM (
    SELECT ended_at FROM cycles WHERE job = 'dream' AND state = 'succeeded' ORDER BY cycle DESC LIMIT 1)
ORDER BY ended_at DESC LIMIT 1;

-- name: notices.bridge_told
-- Give when a server of the bridge, which has not been stopped since, last told how its threads stand.
SELECT value ->> '$.at' AS ended_at FROM facts WHERE name = 'bridge.signs' AND value ->> '$.serving';
