-- name: notices.last_tick
-- Give when a tick of this host last decided anything, in seconds since the epoch.
SELECT value FROM counters WHERE host = :here AND name = 'kloros_orchestrator_last_tick_timestamp_seconds';

-- name: notices.last_iteration
-- Give when an iteration of this host's loop last ended without failing.
SELECT ended_at FROM (
    (SELECT ended_at FROM iterations WHERE host = :here AND status = 'success' ORDER BY iteration DESC LIMIT 1)
    UNION ALL
    (SELECT ended_at FROM iterations WHERE host = :here AND status = 'degraded' ORDER BY iteration DESC LIMIT 1)) AS found
ORDER BY ended_at DESC LIMIT 1;

-- name: notices.last_cycle
-- Give when a cycle of a runner, which run all but the loop's, last succeeded on any host.
SELECT ended_at FROM (
    (SELECT ended_at FROM cycles WHERE job = 'phase' AND state = 'succeeded' ORDER BY cycle DESC LIMIT 1)
    UNION ALL
    (SELECT ended_at FROM cycles WHERE job = 'dream' AND state = 'succeeded' ORDER BY cycle DESC LIMIT 1)) AS found
ORDER BY ended_at DESC LIMIT 1;

-- name: notices.bridge_told
-- Give when this host's server of the bridge, which has not been stopped since, last told how its threads stand.
SELECT kloros_part(value, 'at') AS ended_at FROM facts
WHERE host = :here AND name = 'bridge.signs' AND kloros_part(value, 'serving') NOT IN ('false', '0');
