-- A cycle's folder lies on the host that ran it, and that host makes the bundle.

-- name: bundles.ask
-- Have a cycle's bundle made by its host; one that was asked for before stays as it is.
INSERT INTO bundles (cycle, due_at, host)
VALUES (:cycle, :due_at, coalesce((SELECT nullif(host, '') FROM cycles WHERE cycle = :cycle), :here))
ON CONFLICT (cycle) DO NOTHING;

-- name: bundles.next
-- Give this host's cycles whose bundle may be made now, oldest first: those not tried yet, and those that failed and have
-- waited. A failure that waits for longer than any does is of a clock that was set back, and holds none up.
SELECT cycle, failures FROM bundles
WHERE host = :here AND done_at IS NULL AND (failures = 0 OR due_at <= :now OR due_at > :longest) ORDER BY cycle;

-- name: bundles.due
-- Give one of this host's cycles for whose bundle a runner is to be started, if there is one.
SELECT cycle FROM bundles WHERE host = :here AND done_at IS NULL AND due_at <= :now ORDER BY due_at, cycle LIMIT 1;

-- name: bundles.pending
-- Give the bundles that this host is still to make, oldest first.
SELECT * FROM bundles WHERE host = :here AND done_at IS NULL ORDER BY cycle;
