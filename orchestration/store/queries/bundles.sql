-- name: bundles.ask
-- Have a cycle's bundle made; one that was asked for before stays as it is.
INSERT INTO bundles (cycle, due_at) VALUES (:cycle, :due_at) ON CONFLICT (cycle) DO NOTHING;

-- name: bundles.next
-- Give the cycles whose bundle may be made now, oldest first: those not tried yet, and those that failed and have waited.
-- A failure that waits for longer than any does is of a clock that was set back, and holds none up.
SELECT cycle, failures FROM bundles
WHERE done_at IS NULL AND (failures = 0 OR due_at <= :now OR due_at > :longest) ORDER BY cycle;

-- name: bundles.due
-- Give one cycle for whose bundle a runner is to be started, if there is one.
SELECT cycle FROM bundles WHERE done_at IS NULL AND due_at <= :now ORDER BY due_at, cycle LIMIT 1;

-- name: bundles.get
-- Give what is known of one cycle's bundle.
SELECT * FROM bundles WHERE cycle = :cycle;

-- name: bundles.pending
-- Give the bundles that are still to be made, oldest first.
SELECT * FROM bundles WHERE done_at IS NULL ORDER BY cycle;

-- name: bundles.done
-- Note that the bundle is there, or that there is nothing to put into one.
UPDATE bundles SET done_at = :now, sha256 = :sha256, size = :size, failures = 0, error = ''
WHERE cycle = :cycle AND done_at IS NULL;

-- name: bundles.fail
-- Note a failure, and when to try again.
UPDATE bundles SET failures = :failures, due_at = :due_at, error = :error WHERE cycle = :cycle AND done_at IS NULL;

-- name: bundles.forget
-- Forget the bundle of a number that is run again.
DELETE FROM bundles WHERE cycle = :cycle;
