-- The hosts of a scope; only PostgreSQL has them. Each writes its own row, whether it leads or not.

-- name: hosts.check_in
-- Note that this host ticks; gives no row when another machine has ticked under its name within :lately seconds, else what there
-- is to reap and the boot that ticked before. A boot that ticks again after a later one did is that of a machine's copy.
WITH earlier AS (SELECT boot_id FROM hosts WHERE host = :here)
INSERT INTO hosts (host, machine_id, boot_id, release, first_seen_at, last_tick_at, clock_offset_seconds)
VALUES (:here, :machine_id, :boot_id, :release, clock_timestamp(), clock_timestamp(), :offset)
ON CONFLICT (host) DO UPDATE SET machine_id = excluded.machine_id, boot_id = excluded.boot_id, release = excluded.release,
    boot_before = CASE hosts.boot_id WHEN excluded.boot_id THEN hosts.boot_before ELSE hosts.boot_id END,
    last_tick_at = excluded.last_tick_at, clock_offset_seconds = excluded.clock_offset_seconds
WHERE hosts.machine_id = excluded.machine_id AND (excluded.boot_id = hosts.boot_id OR excluded.boot_id <> hosts.boot_before)
    OR hosts.last_tick_at <= clock_timestamp() - make_interval(secs => :lately)
RETURNING to_reap, (SELECT boot_id FROM earlier) AS before;

-- name: hosts.ended
-- Note how this host's tick ended.
UPDATE hosts SET last_tick_exit = :exit_code, role = :role WHERE host = :here RETURNING host;

-- name: hosts.all
-- Give every host that ever ticked, by name.
SELECT host, machine_id, boot_id, release, role, last_tick_exit, clock_offset_seconds,
    kloros_instant(first_seen_at) AS first_seen_at, kloros_instant(last_tick_at) AS last_tick_at,
    extract(epoch FROM clock_timestamp() - last_tick_at)::float8 AS silent_seconds
FROM hosts ORDER BY host;

-- name: hosts.silent_cycles
-- Give the running cycles of other hosts that have not ticked for :seconds, and since when; Slurm's run elsewhere.
SELECT cycles.*, kloros_instant(coalesce(last_tick_at, started_at::timestamptz)) AS silent_since
FROM cycles LEFT JOIN hosts USING (host)
WHERE state = 'running' AND executor = 'local' AND host <> :here
    AND coalesce(last_tick_at, started_at::timestamptz) <= clock_timestamp() - make_interval(secs => :seconds)
ORDER BY cycle;

-- name: hosts.leave_to_reap
-- Tell a host that comes back which of its cycles ended without it, by their tokens.
UPDATE hosts SET to_reap = (to_reap::jsonb || to_jsonb(CAST(:token AS text)))::text WHERE host = :host;

-- name: hosts.reaped
-- Note that this host has ended what was left of them.
UPDATE hosts SET to_reap = '[]' WHERE host = :here AND to_reap = :told RETURNING host;

-- name: hosts.fit
-- Give the other hosts whose last tick was well and not long ago.
SELECT host FROM hosts
WHERE host <> :here AND last_tick_exit = 0 AND last_tick_at > clock_timestamp() - make_interval(secs => :seconds);
