-- name: escrow.waiting_of
-- Give the entries that wait for promotions with these stems (a JSON list), but those of one cycle.
SELECT * FROM escrow
WHERE status = 'pending_review' AND kind = 'promotion' AND cycle IS DISTINCT FROM :cycle
  AND stem = ANY (ARRAY(SELECT json_array_elements_text(CAST(:stems AS JSON))))
ORDER BY created_at, entry;

-- name: escrow.close
-- Note what became of an entry that waits.
UPDATE escrow SET status = :status, reviewed_at = :at, reviewed_by = :by, reason = :reason, version = :version
WHERE entry = :entry AND status = 'pending_review';

-- name: escrow.unwritten
-- Give the entries whose files on this host don't say what the rows say.
SELECT * FROM escrow e
WHERE NOT EXISTS (SELECT 1 FROM escrow_files f WHERE f.host = :here AND f.entry = e.entry AND f.status = e.status)
ORDER BY entry;

-- name: escrow.written
-- Note that an entry's file is in place on this host.
INSERT INTO escrow_files (host, entry, status) SELECT :here, entry, status FROM escrow WHERE entry = :entry AND status = :status
ON CONFLICT (host, entry) DO UPDATE SET status = excluded.status;
