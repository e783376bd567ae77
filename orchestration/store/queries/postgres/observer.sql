-- name: observer.phase_failures
-- Give the PHASEs that were settled in a span without success, newest first.
SELECT 'cycle ' || cycle || ' ' || state || ': ' || coalesce(kloros_part(result, 'reason'), '') AS what,
    settled_at AS at, 1 AS number FROM cycles
WHERE cycle > coalesce((SELECT cycle FROM cycles WHERE job = 'phase' ORDER BY cycle DESC LIMIT 1 OFFSET 200), 0)
    AND job = 'phase' AND state IN ('failed', 'timed_out', 'lost') AND settled_at > :since AND settled_at <= :now
ORDER BY settled_at DESC, cycle DESC LIMIT :limit;

-- name: observer.sightings
-- Give the cycles of a span in whose output a rule saw lines, newest first.
SELECT 'cycle ' || cycle || ': ' || coalesce(kloros_part(lines, '0'), '') AS what, at, number FROM sightings
WHERE at > :since AND at <= :now AND rule = :rule ORDER BY at DESC, cycle DESC LIMIT :limit;

-- name: observer.note
-- Note that a rule makes an intent, under the next number; its file follows.
INSERT INTO observer_events (event, rule, subject, at, evidence, intent, content)
VALUES ((SELECT coalesce(max(event), 0) + 1 FROM observer_events), :rule, :subject, :at, :evidence, :intent, :content);

-- name: observer.idle
-- Give what tells since when nothing has run, and whether something is about to. Of a future that the clock has left, nothing.
-- How many promotions wait, knows the host whose tick decided last: others have not looked for as long.
SELECT
    (SELECT max(ended_at) FROM cycles WHERE ended_at <= :now AND cycle IN (
        SELECT cycle FROM cycles WHERE job <> 'wake' ORDER BY cycle DESC LIMIT 50)) AS ended_at,
    (SELECT started_at FROM ticks ORDER BY tick LIMIT 1) AS began_at,
    EXISTS (SELECT 1 FROM cycles WHERE settled_at IS NULL AND job <> 'wake') AS active,
    EXISTS (SELECT 1 FROM counters WHERE name = 'kloros_promotions_unacked' AND value > 0 AND host = coalesce(
        (SELECT host FROM ticks WHERE epoch IS NOT NULL ORDER BY tick DESC LIMIT 1), :here)) AS promotions,
    EXISTS (SELECT 1 FROM intents WHERE filed = 0 AND status = 'pending' AND lower(intent_type) NOT LIKE 'loop_goal%') AS intents;

-- name: observer.rest
-- Note from when on the rules are asked again, unless there was news since they were asked.
UPDATE facts SET value = :due WHERE host = '' AND name = 'observer.due' AND value = :asked;

-- name: observer.made
-- Give the rule that made the intent of a name; before it stands the name of the host in whose inbox it was put.
SELECT rule FROM observer_events WHERE intent = substr(:intent, strpos(:intent, '@') + 1);
