-- name: intents.open
-- Give every intent that is not finished: pending, or decided while its file is not yet moved.
SELECT name, content_sha, intent_type, priority, status, reason, seen_at, decided_at
FROM intents WHERE filed = 0 ORDER BY name, decided_at, content_sha;

-- name: intents.acted_on
-- Give since when each processed intent of this content counted, of those decided at :oldest or later.
SELECT seen_at FROM intents
WHERE content_sha = :content_sha AND decided_at >= :oldest AND status = 'processed';

-- name: intents.remember
-- Note a pending intent with the instant it counts from; an intent that is not decided has no decided_at.
INSERT INTO intents (name, content_sha, intent_type, priority, status, seen_at, decided_at)
VALUES (:name, :content_sha, :intent_type, :priority, 'pending', :seen_at, '')
ON CONFLICT (name, content_sha, decided_at) DO UPDATE SET seen_at = excluded.seen_at;

-- name: intents.forget
-- Drop the pending row of a name: it gets its final status now, or its file was replaced or taken away.
DELETE FROM intents WHERE name = :name AND status = 'pending';

-- name: intents.conclude
-- Give an intent its final status; its file is moved afterwards.
INSERT INTO intents (name, content_sha, intent_type, priority, status, reason, seen_at, decided_at, cycle, filed)
VALUES (:name, :content_sha, :intent_type, :priority, :status, :reason, :seen_at, :decided_at, :cycle, 0)
ON CONFLICT (name, content_sha, decided_at) DO UPDATE SET
    status = excluded.status, reason = excluded.reason, cycle = excluded.cycle, filed = 0;

-- name: intents.filed
-- Note that the file of a decided intent is where it belongs.
UPDATE intents SET filed = 1
WHERE name = :name AND content_sha = :content_sha AND decided_at = :decided_at AND status <> 'pending';

-- name: intents.pending
-- Give the pending intents, next first, for people and gauges.
SELECT name, content_sha, intent_type, priority, seen_at FROM intents
WHERE filed = 0 AND status = 'pending' ORDER BY priority DESC, seen_at, name, content_sha;

-- name: intents.count_old
-- Count the intents that were decided before an instant and whose file is where it belongs; up to :limit, -1 for all.
SELECT count(*) AS old FROM (SELECT 1 FROM intents WHERE filed = 1 AND decided_at < :before LIMIT :limit);

-- name: intents.expire
-- Forget the oldest of them.
DELETE FROM intents WHERE (name, content_sha, decided_at) IN (
    SELECT name, content_sha, decided_at FROM intents
    WHERE filed = 1 AND decided_at < :before ORDER BY decided_at, name, content_sha LIMIT :limit);
