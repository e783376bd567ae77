-- name: intents.count_old
-- Count the intents that were decided before an instant and whose file is where it belongs; up to :limit, -1 for all.
SELECT count(*) AS old FROM (
    SELECT 1 FROM intents WHERE filed = 1 AND decided_at < :before LIMIT nullif(CAST(:limit AS BIGINT), -1)) AS found;

-- name: intents.filed
-- Note that the file of a decided intent is where it belongs in the leader's mirror; its host moves its own after that.
-- In one step, so that no leader after this one takes the file for a new intent.
WITH told AS (
    UPDATE shared_files f SET state = 'filed', filed_as = i.status, decided_at = i.decided_at, intent_type = i.intent_type
    FROM intents i
    WHERE i.name = :name AND i.content_sha = :content_sha AND i.decided_at = :decided_at AND i.status <> 'pending'
        AND f.host = split_part(i.name, '@', 1) AND f.folder = 'intents' AND f.state IN ('there', 'given')
        AND f.name = substr(i.name, strpos(i.name, '@') + 1) AND f.content_sha = i.content_sha)
UPDATE intents SET filed = 1
WHERE name = :name AND content_sha = :content_sha AND decided_at = :decided_at AND status <> 'pending';
