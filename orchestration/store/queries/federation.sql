-- name: federation.ask
-- Have a cycle's bundle copied; one that was asked for before stays as it is.
INSERT INTO federations (cycle, asked_at, due_at) VALUES (:cycle, :now, :now) ON CONFLICT (cycle) DO NOTHING;

-- name: federation.ask_again
-- Have a cycle's bundle copied now, also one that failed and waits, and one that was copied.
INSERT INTO federations (cycle, asked_at, due_at) VALUES (:cycle, :now, :now)
ON CONFLICT (cycle) DO UPDATE
SET due_at = excluded.due_at, failures = 0, failed_at = NULL, error = '', done_at = NULL;

-- name: federation.due
-- Give the cycles whose turn it is, oldest first; a failure in the future is of a clock that was set back, and holds none up.
SELECT cycle FROM federations
WHERE done_at IS NULL AND (due_at <= :now OR failed_at > :now) ORDER BY cycle LIMIT :limit;

-- name: federation.get
-- Give what is known of one cycle's copy.
SELECT * FROM federations WHERE cycle = :cycle;

-- name: federation.pending
-- Give what is still to be copied, oldest first.
SELECT * FROM federations WHERE done_at IS NULL ORDER BY cycle;

-- name: federation.newest
-- Give the copies that were made last, newest first.
SELECT * FROM federations WHERE done_at IS NOT NULL AND place <> '' ORDER BY done_at DESC, cycle DESC LIMIT :limit;

-- name: federation.note_bundle
-- Note which bundle is about to be copied.
UPDATE federations SET sha256 = :sha256, size = :size WHERE cycle = :cycle;

-- name: federation.done
-- Note that the copy is there and in the index, or that there is nothing to copy.
UPDATE federations SET done_at = :now, place = :place, failures = 0, failed_at = NULL, error = ''
WHERE cycle = :cycle AND done_at IS NULL;

-- name: federation.fail
-- Note a failure, and when to try again.
UPDATE federations SET failures = :failures, failed_at = :now, due_at = :due_at, error = :error
WHERE cycle = :cycle AND done_at IS NULL;

-- name: federation.forget
-- Forget the copy of a number that is run again.
DELETE FROM federations WHERE cycle = :cycle;
