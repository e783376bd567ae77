-- name: escrow.hold
-- Put a change before a person; one that was put there before stays as it is.
INSERT INTO escrow (entry, kind, stem, promotion_id, target, against, cycle, rule, changes, before, fitness, evidence,
                    emitted_by, four_eyes, status, created_at, expires_at)
VALUES (:entry, :kind, :stem, :promotion_id, :target, :against, :cycle, :rule, :changes, :before, :fitness, :evidence,
        :emitted_by, :four_eyes, :status, :created_at, :expires_at)
ON CONFLICT (entry) DO NOTHING;

-- name: escrow.get
-- Give one entry.
SELECT * FROM escrow WHERE entry = :entry;

-- name: escrow.pending
-- Give what waits for a person, the oldest first.
SELECT * FROM escrow WHERE status = 'pending_review' ORDER BY created_at, entry;

-- name: escrow.all
-- Give every entry, the oldest first.
SELECT * FROM escrow ORDER BY created_at, entry;

-- name: escrow.recent
-- Give the newest entries, the newest first, whatever became of them.
SELECT * FROM escrow ORDER BY created_at DESC, entry LIMIT :limit;

-- name: escrow.expired
-- Give what has waited for too long.
SELECT * FROM escrow WHERE status = 'pending_review' AND expires_at <= :now ORDER BY expires_at, entry;

-- name: escrow.waiting_of
-- Give the entries that wait for promotions with these stems (a JSON list), but those of one cycle.
SELECT * FROM escrow
WHERE status = 'pending_review' AND kind = 'promotion' AND cycle IS DISTINCT FROM :cycle
  AND stem IN (SELECT value FROM json_each(:stems))
ORDER BY created_at, entry;

-- name: escrow.close
-- Note what became of an entry that waits.
UPDATE escrow
SET status = :status, reviewed_at = :at, reviewed_by = :by, reason = :reason, version = :version, written = 0
WHERE entry = :entry AND status = 'pending_review';

-- name: escrow.unwritten
-- Give the entries whose files don't say what the rows say.
SELECT * FROM escrow WHERE written = 0 ORDER BY entry;

-- name: escrow.written
-- Note that an entry's file is in place.
UPDATE escrow SET written = 1 WHERE entry = :entry AND status = :status;
