-- name: heuristics.hints
-- Give the hints that PHASEs were given, by name (see phase/hints.py).
SELECT name, value FROM facts WHERE name >= 'phase.hints.' AND name < 'phase.hints/';

-- name: heuristics.groups
-- Give what is noted of the test groups of PHASEs, by name (see phase/hints.py).
SELECT name, value FROM facts WHERE name >= 'phase.groups.' AND name < 'phase.groups/';

-- name: heuristics.ended
-- Give every cycle that ended and was not cancelled, in the order of their numbers; those that try nothing left out.
SELECT cycle, job, state, timeout_seconds, json_extract(result, '$.wall_seconds') AS wall_seconds,
    json_extract(result, '$.report') AS report, json_extract(result, '$.report_sha') AS report_sha,
    CASE job WHEN 'dream' THEN json_array_length(origin, '$.promotions') ELSE 0 END AS tried
FROM cycles WHERE state IN ('succeeded', 'failed', 'timed_out', 'lost') AND cause <> 'direct' AND job NOT IN ('reflection', 'wake')
ORDER BY cycle;

-- name: heuristics.accepted
-- Give how many promotions each baseline version took in, and from which cycle.
SELECT version, cycle, json_array_length(promotion_ids) AS accepted FROM baseline_versions
WHERE cycle IS NOT NULL AND kind IN ('cycle', 'escrow') ORDER BY version;

-- name: heuristics.newest_version
-- Give the number of the baseline version in force; 0 before the first.
SELECT coalesce(max(version), 0) AS version FROM baseline_versions;
