-- name: records.newest
-- Give cycles as lists show them, the newest first, from a number on down.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    kloros_part(result, 'reason') AS reason, telemetry
FROM cycles LEFT JOIN products USING (cycle)
WHERE cycle < :after
  AND (:job = '' OR job = :job) AND (:state = '' OR state = :state)
  AND (:text = '' OR coalesce(cycle = CAST(CASE WHEN :text ~ '^[0-9]{1,18}$' THEN :text END AS BIGINT), false)
      OR strpos(lower(coalesce(kloros_part(result, 'reason'), '') || chr(10) || kloros_part(origin, 'topic') || chr(10)
          || kloros_part(origin, 'intent') || chr(10) || kloros_part(origin, 'promotions')), :text) > 0)
ORDER BY cycle DESC LIMIT :limit;

-- name: records.oldest
-- Give cycles as lists show them, the oldest first, from a number on.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    kloros_part(result, 'reason') AS reason, telemetry
FROM cycles LEFT JOIN products USING (cycle)
WHERE cycle > :after
  AND (:job = '' OR job = :job) AND (:state = '' OR state = :state)
  AND (:text = '' OR coalesce(cycle = CAST(CASE WHEN :text ~ '^[0-9]{1,18}$' THEN :text END AS BIGINT), false)
      OR strpos(lower(coalesce(kloros_part(result, 'reason'), '') || chr(10) || kloros_part(origin, 'topic') || chr(10)
          || kloros_part(origin, 'intent') || chr(10) || kloros_part(origin, 'promotions')), :text) > 0)
ORDER BY cycle LIMIT :limit;

-- name: records.longest
-- Give the cycles that took a known time, the longest first, from a duration and number on down.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    kloros_part(result, 'reason') AS reason, telemetry,
    kloros_seconds(started_at, ended_at) AS seconds
FROM cycles LEFT JOIN products USING (cycle)
WHERE state NOT IN ('queued', 'running', 'lost') AND started_at IS NOT NULL
  AND (kloros_seconds(started_at, ended_at), cycle) < (:seconds, :after)
  AND (:job = '' OR job = :job) AND (:state = '' OR state = :state)
  AND (:text = '' OR coalesce(cycle = CAST(CASE WHEN :text ~ '^[0-9]{1,18}$' THEN :text END AS BIGINT), false)
      OR strpos(lower(coalesce(kloros_part(result, 'reason'), '') || chr(10) || kloros_part(origin, 'topic') || chr(10)
          || kloros_part(origin, 'intent') || chr(10) || kloros_part(origin, 'promotions')), :text) > 0)
ORDER BY kloros_seconds(started_at, ended_at) DESC, cycle DESC LIMIT :limit;

-- name: records.shortest
-- Give the cycles that took a known time, the shortest first, from a duration and number on.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    kloros_part(result, 'reason') AS reason, telemetry,
    kloros_seconds(started_at, ended_at) AS seconds
FROM cycles LEFT JOIN products USING (cycle)
WHERE state NOT IN ('queued', 'running', 'lost') AND started_at IS NOT NULL
  AND (kloros_seconds(started_at, ended_at), cycle) > (:seconds, :after)
  AND (:job = '' OR job = :job) AND (:state = '' OR state = :state)
  AND (:text = '' OR coalesce(cycle = CAST(CASE WHEN :text ~ '^[0-9]{1,18}$' THEN :text END AS BIGINT), false)
      OR strpos(lower(coalesce(kloros_part(result, 'reason'), '') || chr(10) || kloros_part(origin, 'topic') || chr(10)
          || kloros_part(origin, 'intent') || chr(10) || kloros_part(origin, 'promotions')), :text) > 0)
ORDER BY kloros_seconds(started_at, ended_at), cycle LIMIT :limit;

-- name: records.count
-- Count the cycles of a job and state.
SELECT count(*) AS cycles FROM cycles
WHERE (:job = '' OR job = :job) AND (:state = '' OR state = :state);

-- name: records.count_timed
-- Count the cycles of a job and state that took a known time.
SELECT count(*) AS cycles FROM cycles
WHERE state NOT IN ('queued', 'running', 'lost') AND started_at IS NOT NULL
  AND (:job = '' OR job = :job) AND (:state = '' OR state = :state);

-- name: records.line
-- Give one cycle as lists show it.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    kloros_part(result, 'reason') AS reason, telemetry, pruned_at
FROM cycles LEFT JOIN products USING (cycle) WHERE cycle = :cycle;

-- name: records.neighbours
-- Give the numbers of its host's ticks before and after one.
SELECT (SELECT max(tick) FROM ticks WHERE tick < :tick AND host = own.host) AS previous,
    (SELECT min(tick) FROM ticks WHERE tick > :tick AND host = own.host) AS following
FROM (SELECT coalesce((SELECT host FROM ticks WHERE tick = :tick), :here) AS host) AS own;
