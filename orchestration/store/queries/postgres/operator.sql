-- name: operator.ticks_between
-- The ticks of this host in a span of time, newest first.
SELECT * FROM ticks WHERE host = :here AND started_at >= :since AND started_at < :until ORDER BY tick DESC LIMIT :limit;
