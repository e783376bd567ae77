-- name: baseline.append
-- Add the next version, provided the newest one is still the one it was made from.
INSERT INTO baseline_versions
    (version, sha256, previous_sha, ts, actor, kind, reason, cycle, promotion_ids, parameters, fitness)
SELECT CAST(:version AS BIGINT), :sha256, :previous_sha, :ts, :actor, :kind, :reason, CAST(:cycle AS BIGINT), :promotion_ids,
    :parameters, CAST(:fitness AS DOUBLE PRECISION)
WHERE coalesce((SELECT sha256 FROM baseline_versions ORDER BY version DESC LIMIT 1), '') = :previous_sha;

-- name: baseline.newest
-- Give the version in force.
SELECT * FROM baseline_versions ORDER BY version DESC LIMIT 1;

-- name: baseline.get
-- Give one version.
SELECT * FROM baseline_versions WHERE version = :version;

-- name: baseline.all
-- Give every version, oldest first.
SELECT * FROM baseline_versions ORDER BY version;

-- name: baseline.recent
-- Give the newest versions, newest first.
SELECT * FROM baseline_versions ORDER BY version DESC LIMIT :limit;

-- name: baseline.unwritten
-- Give the versions whose files are not in place yet, oldest first.
SELECT * FROM baseline_versions WHERE written = 0 ORDER BY version;

-- name: baseline.written
-- Note that a version's files are in place.
UPDATE baseline_versions SET written = 1 WHERE version = :version;

-- name: baseline.retire
-- Note that the files of all but the newest versions go; versions stay.
UPDATE baseline_versions SET retired_at = :now
WHERE retired_at IS NULL AND written = 1 AND version <= (SELECT max(version) FROM baseline_versions) - :keep;

-- name: baseline.retired
-- Give the versions whose files retention let go, with their hashes.
SELECT version, sha256 FROM baseline_versions WHERE retired_at IS NOT NULL ORDER BY version;

-- name: baseline.beyond
-- Give the versions that are not among the newest, with their hashes.
SELECT version, sha256 FROM baseline_versions
WHERE written = 1 AND version <= (SELECT max(version) FROM baseline_versions) - :keep ORDER BY version;

-- name: baseline.due
-- Tell what a tick has to see to besides finished cycles: files of the baseline or of escrow, entries past their time.
-- One row for each kind; each part is a look into an index that is empty on a quiet day.
SELECT * FROM (SELECT 'baseline' AS what FROM baseline_versions WHERE written = 0 LIMIT 1)
UNION ALL SELECT * FROM (SELECT 'files' FROM escrow WHERE written = 0 LIMIT 1)
UNION ALL SELECT * FROM (SELECT 'expired' FROM escrow WHERE status = 'pending_review' AND expires_at <= :now LIMIT 1);
