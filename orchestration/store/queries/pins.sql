-- name: pins.all
-- Give every cycle that a person keeps.
SELECT cycle, reason, pinned_by, pinned_at FROM pins ORDER BY cycle;

-- name: pins.set
-- Keep a cycle's folder whatever its age; again to change the reason.
INSERT INTO pins (cycle, reason, pinned_by, pinned_at) VALUES (:cycle, :reason, :pinned_by, :now)
ON CONFLICT (cycle) DO UPDATE SET reason = excluded.reason, pinned_by = excluded.pinned_by, pinned_at = excluded.pinned_at;

-- name: pins.remove
-- Let a cycle's folder go when its time comes.
DELETE FROM pins WHERE cycle = :cycle;
