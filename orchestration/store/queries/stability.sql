-- name: stability.first_tick
-- When the history of ticks begins; NULL when there is none.
SELECT min(started_at) AS started_at FROM ticks;

-- name: stability.tick_exits
-- How the ticks of a span of time ended.
SELECT exit_code, count(*) AS ticks FROM ticks
WHERE started_at >= :since AND started_at < :until GROUP BY exit_code ORDER BY exit_code;

-- name: stability.failed_ticks
-- The ticks of a span of time that ended otherwise than these exits (a JSON list), oldest first.
SELECT tick, started_at, exit_code, findings FROM ticks
WHERE started_at >= :since AND started_at < :until AND exit_code NOT IN (SELECT value FROM json_each(:well))
ORDER BY started_at, tick LIMIT :limit;

-- name: stability.tick_gaps
-- The pauses between ticks of a span of time that are longer than so many seconds, oldest first. Ticks that were turned away
-- with one of these exits (a JSON list) looked at nothing, and count as none.
SELECT before, after FROM (
    SELECT lag(started_at) OVER (ORDER BY started_at) AS before, started_at AS after FROM ticks
    WHERE started_at >= :since AND started_at < :until AND exit_code NOT IN (SELECT value FROM json_each(:away)))
WHERE (julianday(after) - julianday(before)) * 86400 > :seconds ORDER BY after;

-- name: stability.tick_edges
-- The first and the last tick of a span of time, of those that were not turned away with one of these exits (a JSON list).
SELECT min(started_at) AS first, max(started_at) AS last FROM ticks
WHERE started_at >= :since AND started_at < :until AND exit_code NOT IN (SELECT value FROM json_each(:away));

-- name: stability.lost_cycles
-- The cycles that were lost in a span of time, oldest first; turns of agents, which their trigger tries again, left out.
SELECT cycle, job, coalesce(ended_at, queued_at) AS at FROM cycles
WHERE state = 'lost' AND job <> 'wake' AND coalesce(ended_at, queued_at) >= :since AND coalesce(ended_at, queued_at) < :until ORDER BY cycle;
