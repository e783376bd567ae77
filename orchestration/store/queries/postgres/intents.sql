-- name: intents.count_old
-- Count the intents that were decided before an instant and whose file is where it belongs; up to :limit, -1 for all.
SELECT count(*) AS old FROM (
    SELECT 1 FROM intents WHERE filed = 1 AND decided_at < :before LIMIT nullif(CAST(:limit AS BIGINT), -1)) AS found;
