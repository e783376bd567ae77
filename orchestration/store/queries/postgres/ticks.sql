-- The ticks of all hosts stand in one table; history is asked for a host's own, the accounting of PHASE dates for the leader's.

-- name: ticks.append
-- Store one tick of this host under the next number, with the lease's epoch if this host holds it; give that number.
INSERT INTO ticks (tick, tick_id, started_at, ended_at, boot_id, decision, exit_code, cycle, blocker, findings, host, epoch)
VALUES ((SELECT coalesce(max(tick), 0) + 1 FROM ticks), :tick_id, :started_at, :ended_at, :boot_id, :decision, :exit_code, :cycle,
    :blocker, :findings, :here, (SELECT epoch FROM leases WHERE scope = :scope AND holder = :here))
RETURNING tick;

-- name: ticks.recent
-- Give this host's newest ticks.
SELECT * FROM ticks WHERE host = :here ORDER BY tick DESC LIMIT :limit;

-- name: ticks.after
-- Give this host's ticks that follow a number, oldest first.
SELECT * FROM ticks WHERE host = :here AND tick > :tick ORDER BY tick LIMIT :limit;

-- name: ticks.get
-- Give one tick by its id or its number.
SELECT * FROM ticks WHERE tick_id = :tick_id
   OR tick = CAST(CASE WHEN :tick_id ~ '^[0-9]{1,18}$' THEN :tick_id END AS BIGINT);

-- name: ticks.last_before
-- Give this host's newest tick that started before an instant.
SELECT * FROM ticks WHERE host = :here AND started_at < :instant ORDER BY started_at DESC, tick DESC LIMIT 1;

-- name: ticks.blockers
-- Count why the ticks of a span started no PHASE, most frequent reason first: those of whoever led, and only when nobody did,
-- those of the others, so that no number of standbys hides why the leader started none.
SELECT blocker, count(*) AS ticks FROM ticks
WHERE started_at >= :since AND started_at < :until
    AND (epoch IS NOT NULL OR NOT EXISTS (
        SELECT 1 FROM ticks WHERE epoch IS NOT NULL AND started_at >= :since AND started_at < :until))
GROUP BY blocker ORDER BY count(*) DESC, blocker NULLS FIRST;

-- name: ticks.count_old
-- Count the ticks of all hosts that started before an instant, less the newest there are, so many for each host; up to :limit,
-- -1 for all.
SELECT count(*) AS old FROM (
    SELECT 1 FROM ticks WHERE started_at < :before
        AND tick <= (SELECT max(tick) FROM ticks) - :newest * greatest(1, (SELECT count(*) FROM hosts))
    LIMIT nullif(CAST(:limit AS BIGINT), -1)) AS found;

-- name: ticks.expire
-- Remove the oldest of them.
DELETE FROM ticks WHERE tick IN (
    SELECT tick FROM ticks WHERE started_at < :before
        AND tick <= (SELECT max(tick) FROM ticks) - :newest * greatest(1, (SELECT count(*) FROM hosts))
    ORDER BY started_at, tick LIMIT :limit);
