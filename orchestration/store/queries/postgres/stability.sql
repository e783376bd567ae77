-- How stable a host has been is told by its own ticks.

-- name: stability.first_tick
-- When the history of this host's ticks begins; NULL when there is none.
SELECT min(started_at) AS started_at FROM ticks WHERE host = :here;

-- name: stability.tick_exits
-- How this host's ticks of a span of time ended.
SELECT exit_code, count(*) AS ticks FROM ticks
WHERE host = :here AND started_at >= :since AND started_at < :until GROUP BY exit_code ORDER BY exit_code;

-- name: stability.failed_ticks
-- This host's ticks of a span of time that ended otherwise than these exits (a JSON list), oldest first.
SELECT tick, started_at, exit_code, findings FROM ticks
WHERE host = :here AND started_at >= :since AND started_at < :until
    AND exit_code NOT IN (SELECT CAST(json_array_elements_text(CAST(:well AS JSON)) AS BIGINT))
ORDER BY started_at, tick LIMIT :limit;

-- name: stability.tick_gaps
-- The pauses between this host's ticks of a span of time that are longer than so many seconds, oldest first. Ticks that were
-- turned away with one of these exits (a JSON list) looked at nothing, and count as none.
SELECT before, after FROM (
    SELECT lag(started_at) OVER (ORDER BY started_at) AS before, started_at AS after FROM ticks
    WHERE host = :here AND started_at >= :since AND started_at < :until
        AND exit_code NOT IN (SELECT CAST(json_array_elements_text(CAST(:away AS JSON)) AS BIGINT))) AS pauses
WHERE kloros_seconds(before, after) > :seconds ORDER BY after;

-- name: stability.tick_edges
-- The first and the last of this host's ticks in a span of time, of those that were not turned away with one of these exits (a
-- JSON list).
SELECT min(started_at) AS first, max(started_at) AS last FROM ticks
WHERE host = :here AND started_at >= :since AND started_at < :until
    AND exit_code NOT IN (SELECT CAST(json_array_elements_text(CAST(:away AS JSON)) AS BIGINT));
