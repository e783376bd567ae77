-- name: promotions.known
-- What we remember of the promotions with these stems (a JSON list).
SELECT stem, promotion_id, state, failures, fitness, reason, first_seen_at, changed_at, cycle
FROM promotions
WHERE stem = ANY (ARRAY(SELECT json_array_elements_text(CAST(:stems AS JSON))))
ORDER BY stem;

-- name: promotions.oldest
-- When the oldest of the promotions with these stems (a JSON list) was first seen.
SELECT min(first_seen_at) AS first_seen_at FROM promotions
WHERE stem = ANY (ARRAY(SELECT json_array_elements_text(CAST(:stems AS JSON))));

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
  AND stem = ANY (ARRAY(SELECT json_array_elements_text(CAST(:stems AS JSON))));

-- name: promotions.remember_older_acks
-- Remember what older acks answer (a JSON object of file name and id), so that they are never opened again.
INSERT INTO legacy_acks (file_name, promotion_id)
SELECT key, value FROM json_each_text(CAST(:acks AS JSON)) WHERE true
ON CONFLICT (file_name) DO NOTHING;
