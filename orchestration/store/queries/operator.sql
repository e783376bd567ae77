-- name: operator.intents_named
-- Everything that is remembered of one intent's file, newest first.
SELECT name, content_sha, intent_type, priority, status, reason, seen_at, decided_at, cycle, filed FROM intents
WHERE name = :name ORDER BY decided_at DESC, content_sha;

-- name: operator.intents_decided
-- The intents that were decided last, newest first.
SELECT name, content_sha, intent_type, priority, status, reason, seen_at, decided_at, cycle, filed FROM intents
WHERE decided_at <> '' ORDER BY decided_at DESC, name, content_sha LIMIT :limit;

-- name: operator.ticks_between
-- The ticks of a span of time, newest first.
SELECT * FROM ticks WHERE started_at >= :since AND started_at < :until ORDER BY tick DESC LIMIT :limit;

-- name: operator.answered_by
-- What one cycle answered to its promotions.
SELECT stem, state, fitness, reason FROM promotions
WHERE cycle = :cycle AND state IN ('accepted', 'rejected') ORDER BY stem;
