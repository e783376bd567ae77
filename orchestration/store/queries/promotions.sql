-- name: promotions.known
-- What we remember of the promotions with these stems (a JSON list).
SELECT stem, promotion_id, state, failures, fitness, reason, first_seen_at, changed_at, cycle
FROM promotions
WHERE stem IN (SELECT value FROM json_each(:stems))
ORDER BY stem;

-- name: promotions.oldest
-- When the oldest of the promotions with these stems (a JSON list) was first seen.
SELECT min(first_seen_at) AS first_seen_at FROM promotions
WHERE stem IN (SELECT value FROM json_each(:stems));

-- name: promotions.all_parked
-- Every parked promotion, for `status` and `promotions list`.
SELECT stem, promotion_id, state, failures, fitness, reason, first_seen_at, changed_at, cycle
FROM promotions
WHERE state = 'parked'
ORDER BY stem;

-- name: promotions.recent
-- The promotions that changed last, newest first.
SELECT stem, promotion_id, state, failures, fitness, reason, first_seen_at, changed_at, cycle
FROM promotions
ORDER BY changed_at DESC, stem
LIMIT :limit;

-- name: promotions.answered
-- Give the promotions that were answered last, newest first.
SELECT stem, promotion_id, state, failures, fitness, reason, first_seen_at, changed_at, cycle FROM promotions
WHERE state IN ('accepted', 'rejected') ORDER BY changed_at DESC, stem LIMIT :limit;

-- name: promotions.see
-- Remember a promotion that has no ack; one that we thought answered is unacked again, its ack is gone.
INSERT INTO promotions (stem, promotion_id, state, failures, fitness, reason, first_seen_at, changed_at, cycle)
VALUES (:stem, :promotion_id, 'unacked', 0, :fitness, '', :at, :at, NULL)
ON CONFLICT (stem) DO UPDATE
SET promotion_id = excluded.promotion_id,
    fitness      = excluded.fitness,
    failures     = CASE WHEN promotions.state IN ('accepted', 'rejected') THEN 0 ELSE promotions.failures END,
    reason       = CASE WHEN promotions.state IN ('accepted', 'rejected') THEN '' ELSE promotions.reason END,
    changed_at   = excluded.changed_at,
    state        = CASE WHEN promotions.state = 'parked' THEN 'parked' ELSE 'unacked' END
WHERE promotions.state IN ('accepted', 'rejected')
   OR promotions.promotion_id <> excluded.promotion_id
   OR promotions.fitness IS DISTINCT FROM excluded.fitness;

-- name: promotions.fail
-- Count a failed or lost cycle once for each of its unacked promotions (a JSON list of stems), and park at the limit.
UPDATE promotions
SET failures   = failures + 1,
    state      = CASE WHEN failures + 1 >= :park_after THEN 'parked' ELSE 'unacked' END,
    reason     = :reason,
    cycle      = :cycle,
    changed_at = :at
WHERE state = 'unacked'
  AND (cycle IS NULL OR cycle <> :cycle)
  AND stem IN (SELECT value FROM json_each(:stems));

-- name: promotions.answer
-- Record our answer; changes nothing when it is recorded already.
INSERT INTO promotions (stem, promotion_id, state, failures, fitness, reason, first_seen_at, changed_at, cycle)
VALUES (:stem, :promotion_id, :state, 0, :fitness, :reason, :at, :at, :cycle)
ON CONFLICT (stem) DO UPDATE
SET promotion_id = excluded.promotion_id,
    state        = excluded.state,
    failures     = 0,
    fitness      = coalesce(excluded.fitness, promotions.fitness),
    reason       = excluded.reason,
    changed_at   = excluded.changed_at,
    cycle        = excluded.cycle
WHERE promotions.state IN ('unacked', 'parked');

-- name: promotions.retry
-- Let a parked promotion go again, by a person.
UPDATE promotions
SET state = 'unacked', failures = 0, reason = '', changed_at = :at
WHERE stem = :stem AND state = 'parked';

-- name: promotions.counts
-- How many promotions are remembered in each state.
SELECT state, count(*) AS promotions FROM promotions GROUP BY state;

-- name: promotions.older_acks
-- Every ack of an older form that was opened once, and what it answers; '' when it is no ack.
SELECT file_name, promotion_id FROM legacy_acks;

-- name: promotions.remember_older_acks
-- Remember what older acks answer (a JSON object of file name and id), so that they are never opened again.
INSERT INTO legacy_acks (file_name, promotion_id)
SELECT key, value FROM json_each(:acks) WHERE true
ON CONFLICT (file_name) DO NOTHING;
