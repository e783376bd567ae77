-- A cycle's bundle lies on the host that ran it, and that host copies it.

-- name: federation.ask
-- Have a cycle's bundle copied by its host; one that was asked for before stays as it is.
INSERT INTO federations (cycle, asked_at, due_at, host)
VALUES (:cycle, :now, :now, coalesce((SELECT nullif(host, '') FROM cycles WHERE cycle = :cycle), :here))
ON CONFLICT (cycle) DO NOTHING;

-- name: federation.ask_again
-- Have a cycle's bundle copied now, also one that failed and waits, and one that was copied.
INSERT INTO federations (cycle, asked_at, due_at, host)
VALUES (:cycle, :now, :now, coalesce((SELECT nullif(host, '') FROM cycles WHERE cycle = :cycle), :here))
ON CONFLICT (cycle) DO UPDATE
SET due_at = excluded.due_at, failures = 0, failed_at = NULL, error = '', done_at = NULL;

-- name: federation.due
-- Give this host's cycles whose turn it is, oldest first; a failure in the future is of a clock that was set back, and holds
-- none up.
SELECT cycle FROM federations
WHERE host = :here AND done_at IS NULL AND (due_at <= :now OR failed_at > :now)
ORDER BY cycle LIMIT nullif(CAST(:limit AS BIGINT), -1);

-- name: federation.pending
-- Give what this host is still to copy, oldest first.
SELECT * FROM federations WHERE host = :here AND done_at IS NULL ORDER BY cycle;
