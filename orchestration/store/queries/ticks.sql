-- name: ticks.append
-- Store one tick under the next number, and give that number.
INSERT INTO ticks (tick_id, started_at, ended_at, boot_id, decision, exit_code, cycle, blocker, findings)
VALUES (:tick_id, :started_at, :ended_at, :boot_id, :decision, :exit_code, :cycle, :blocker, :findings)
RETURNING tick;

-- name: ticks.fail
-- Note how a tick ended that failed after its record.
UPDATE ticks SET exit_code = :exit_code WHERE tick_id = :tick_id;

-- name: ticks.recent
-- Give the newest ticks.
SELECT * FROM ticks ORDER BY tick DESC LIMIT :limit;

-- name: ticks.after
-- Give the ticks that follow a number, oldest first.
SELECT * FROM ticks WHERE tick > :tick ORDER BY tick LIMIT :limit;

-- name: ticks.get
-- Give one tick by its id or its number.
SELECT * FROM ticks WHERE tick_id = :tick_id
   OR tick = CASE WHEN :tick_id NOT LIKE '%-%' THEN CAST(:tick_id AS INTEGER) END;

-- name: ticks.last_before
-- Give the newest tick that started before an instant.
SELECT * FROM ticks WHERE started_at < :instant ORDER BY started_at DESC, tick DESC LIMIT 1;

-- name: ticks.last_of_any_before
-- Give the newest tick that started before an instant, whichever host's it was.
SELECT * FROM ticks WHERE started_at < :instant ORDER BY started_at DESC, tick DESC LIMIT 1;

-- name: ticks.blockers
-- Count why the ticks of a span started no PHASE, most frequent reason first.
SELECT blocker, count(*) AS ticks FROM ticks
WHERE started_at >= :since AND started_at < :until
GROUP BY blocker ORDER BY count(*) DESC, blocker;

-- name: ticks.count_old
-- Count the ticks that started before an instant, less the newest there are; up to :limit, -1 for all.
SELECT count(*) AS old FROM (
    SELECT 1 FROM ticks
    WHERE started_at < :before AND tick <= (SELECT max(tick) FROM ticks) - :newest LIMIT :limit);

-- name: ticks.expire
-- Remove the oldest of them.
DELETE FROM ticks WHERE tick IN (
    SELECT tick FROM ticks
    WHERE started_at < :before AND tick <= (SELECT max(tick) FROM ticks) - :newest ORDER BY started_at, tick LIMIT :limit);
