-- Which files are in place is told for each host, in tables of their own.

-- name: baseline.unwritten
-- Give the versions whose files are not in place on this host yet, oldest first.
SELECT * FROM baseline_versions v
WHERE NOT EXISTS (SELECT 1 FROM baseline_files f WHERE f.host = :here AND f.version = v.version) ORDER BY version;

-- name: baseline.written
-- Note that a version's files are in place on this host.
INSERT INTO baseline_files (host, version) SELECT :here, version FROM baseline_versions WHERE version = :version
ON CONFLICT (host, version) DO UPDATE SET version = excluded.version;

-- name: baseline.retire
-- Note that the files of all but the newest versions go from this host; versions stay.
UPDATE baseline_files SET retired_at = :now
WHERE host = :here AND retired_at IS NULL AND version <= (SELECT max(version) FROM baseline_versions) - :keep;

-- name: baseline.retired
-- Give the versions whose files retention let go here, with their hashes.
SELECT version, sha256 FROM baseline_versions JOIN baseline_files USING (version)
WHERE host = :here AND retired_at IS NOT NULL ORDER BY version;

-- name: baseline.beyond
-- Give the versions that are not among the newest, with their hashes.
SELECT version, sha256 FROM baseline_versions JOIN baseline_files USING (version)
WHERE host = :here AND version <= (SELECT max(version) FROM baseline_versions) - :keep ORDER BY version;

-- name: baseline.due
-- Tell what a tick has to see to besides finished cycles: this host's files of the baseline or of escrow, entries past their time.
SELECT 'baseline' AS what WHERE EXISTS (
    SELECT 1 FROM baseline_versions v
    WHERE NOT EXISTS (SELECT 1 FROM baseline_files f WHERE f.host = :here AND f.version = v.version))
UNION ALL SELECT 'files' WHERE EXISTS (
    SELECT 1 FROM escrow e
    WHERE NOT EXISTS (SELECT 1 FROM escrow_files f WHERE f.host = :here AND f.entry = e.entry AND f.status = e.status))
UNION ALL SELECT 'expired' WHERE EXISTS (SELECT 1 FROM escrow WHERE status = 'pending_review' AND expires_at <= :now);
