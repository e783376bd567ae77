-- name: notices.last_tick
-- Give when a tick last decided anything, in seconds since the epoch.
SELECT value FROM counters WHERE name = 'kloros_orchestrator_last_tick_timestamp_seconds';
