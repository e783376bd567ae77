-- name: observer.arrivals
-- Give the promotions that were first seen in a span and not refused as invalid, newest first.
SELECT stem AS what, first_seen_at AS at, 1 AS number FROM promotions
WHERE first_seen_at > :since AND first_seen_at <= :now AND NOT (state = 'rejected' AND cycle IS NULL)
ORDER BY first_seen_at DESC, stem LIMIT :limit;

-- name: observer.phase_failures
-- Give the PHASEs that were settled in a span without success, newest first.
SELECT 'cycle ' || cycle || ' ' || state || ': ' || coalesce(json_extract(result, '$.reason'), '') AS what,
    settled_at AS at, 1 AS number FROM cycles
WHERE cycle > coalesce((SELECT cycle FROM cycles WHERE job = 'phase' ORDER BY cycle DESC LIMIT 1 OFFSET 200), 0)
    AND job = 'phase' AND state IN ('failed', 'timed_out', 'lost') AND settled_at > :since AND settled_at <= :now
ORDER BY settled_at DESC, cycle DESC LIMIT :limit;

-- name: observer.contentions
-- Give the ticks of a span that found the lock held, newest first.
SELECT tick_id AS what, started_at AS at, 1 AS number FROM ticks
WHERE started_at > :since AND started_at <= :now AND exit_code = 75 ORDER BY started_at DESC, tick DESC LIMIT :limit;

-- name: observer.sightings
-- Give the cycles of a span in whose output a rule saw lines, newest first.
SELECT 'cycle ' || cycle || ': ' || coalesce(json_extract(lines, '$[0]'), '') AS what, at, number FROM sightings
WHERE at > :since AND at <= :now AND rule = :rule ORDER BY at DESC, cycle DESC LIMIT :limit;

-- name: observer.last
-- Give when each rule last made an intent, and for which subject.
SELECT rule, subject, max(at) AS at FROM observer_events WHERE at <= :now GROUP BY rule, subject;

-- name: observer.last_of
-- Give the last intent of one rule.
SELECT at, evidence FROM observer_events WHERE rule = :rule AND at <= :now ORDER BY at DESC, event DESC LIMIT 1;

-- name: observer.note
-- Note that a rule makes an intent; its file follows.
INSERT INTO observer_events (rule, subject, at, evidence, intent, content)
VALUES (:rule, :subject, :at, :evidence, :intent, :content);

-- name: observer.made
-- Give the rule that made the intent of a name.
SELECT rule FROM observer_events WHERE intent = :intent;

-- name: observer.unwritten
-- Give the intents whose files are not known to be in place, oldest first.
SELECT event, rule, intent, content FROM observer_events WHERE written = 0 ORDER BY event;

-- name: observer.written
-- Note that an intent's file is in place.
UPDATE observer_events SET written = 1, content = '' WHERE event = :event;

-- name: observer.see
-- Note lines that a rule saw in a cycle's output.
INSERT INTO sightings (cycle, rule, at, number, lines) VALUES (:cycle, :rule, :at, :number, :lines)
ON CONFLICT (cycle, rule) DO UPDATE SET at = excluded.at, number = excluded.number, lines = excluded.lines;

-- name: observer.idle
-- Give what tells since when nothing has run, and whether something is about to. Of a future that the clock has left, nothing.
SELECT
    (SELECT max(ended_at) FROM cycles WHERE ended_at <= :now AND cycle IN (
        SELECT cycle FROM cycles INDEXED BY cycles_listed WHERE job <> 'wake' ORDER BY cycle DESC LIMIT 50)) AS ended_at,
    (SELECT started_at FROM ticks ORDER BY tick LIMIT 1) AS began_at,
    EXISTS (SELECT 1 FROM cycles WHERE settled_at IS NULL AND job <> 'wake') AS active,
    EXISTS (SELECT 1 FROM counters WHERE name = 'kloros_promotions_unacked' AND value > 0) AS promotions,
    EXISTS (SELECT 1 FROM intents WHERE filed = 0 AND status = 'pending' AND lower(intent_type) NOT LIKE 'loop_goal%') AS intents;

-- name: observer.expire_events
-- Forget what rules asked for before an instant.
DELETE FROM observer_events WHERE at < :before AND written = 1;

-- name: observer.rest
-- Note from when on the rules are asked again, unless there was news since they were asked.
UPDATE facts SET value = :due WHERE name = 'observer.due' AND value = :asked;

-- name: observer.expire_sightings
-- Forget the lines that were seen before an instant.
DELETE FROM sightings WHERE at < :before;
