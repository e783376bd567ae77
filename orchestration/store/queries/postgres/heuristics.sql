-- name: heuristics.hints
-- Give the hints that PHASEs were given, by name (see phase/hints.py).
SELECT name, value FROM facts WHERE host = '' AND name >= 'phase.hints.' AND name < 'phase.hints/' ORDER BY name;

-- name: heuristics.groups
-- Give what is noted of the test groups of PHASEs, by name (see phase/hints.py).
SELECT name, value FROM facts WHERE host = '' AND name >= 'phase.groups.' AND name < 'phase.groups/' ORDER BY name;

-- name: heuristics.ended
-- Give every cycle that ended and was not cancelled, in the order of their numbers; those that try nothing left out.
SELECT cycle, job, state, timeout_seconds, CAST(kloros_part(result, 'wall_seconds') AS DOUBLE PRECISION) AS wall_seconds,
    kloros_part(result, 'report') AS report, kloros_part(result, 'report_sha') AS report_sha,
    CASE job WHEN 'dream' THEN json_array_length(CAST(kloros_part(origin, 'promotions') AS JSON)) ELSE 0 END AS tried
FROM cycles WHERE state IN ('succeeded', 'failed', 'timed_out', 'lost') AND cause <> 'direct' AND job NOT IN ('reflection', 'wake')
ORDER BY cycle;

-- name: heuristics.accepted
-- Give how many promotions each baseline version took in, and from which cycle.
SELECT version, cycle, json_array_length(CAST(promotion_ids AS JSON)) AS accepted FROM baseline_versions
WHERE cycle IS NOT NULL AND kind IN ('cycle', 'escrow') ORDER BY version;
