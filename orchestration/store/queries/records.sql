-- name: records.newest
-- Give cycles as lists show them, the newest first, from a number on down.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    json_extract(result, '$.reason') AS reason, telemetry
FROM cycles INDEXED BY cycles_listed LEFT JOIN products USING (cycle)
WHERE cycle < :after
  AND (:job = '' OR job = :job) AND (:state = '' OR state = :state)
  AND (:text = '' OR cycle = :text
      OR instr(lower(coalesce(json_extract(result, '$.reason'), '') || char(10) || json_extract(origin, '$.topic') || char(10)
          || json_extract(origin, '$.intent') || char(10) || json_extract(origin, '$.promotions')), :text))
ORDER BY cycle DESC LIMIT :limit;

-- name: records.oldest
-- Give cycles as lists show them, the oldest first, from a number on.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    json_extract(result, '$.reason') AS reason, telemetry
FROM cycles INDEXED BY cycles_listed LEFT JOIN products USING (cycle)
WHERE cycle > :after
  AND (:job = '' OR job = :job) AND (:state = '' OR state = :state)
  AND (:text = '' OR cycle = :text
      OR instr(lower(coalesce(json_extract(result, '$.reason'), '') || char(10) || json_extract(origin, '$.topic') || char(10)
          || json_extract(origin, '$.intent') || char(10) || json_extract(origin, '$.promotions')), :text))
ORDER BY cycle LIMIT :limit;

-- name: records.longest
-- Give the cycles that took a known time, the longest first, from a duration and number on down.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    json_extract(result, '$.reason') AS reason, telemetry,
    round(86400 * (julianday(ended_at) - julianday(started_at)), 3) AS seconds
FROM cycles INDEXED BY cycles_by_duration LEFT JOIN products USING (cycle)
WHERE state NOT IN ('queued', 'running', 'lost') AND started_at IS NOT NULL
  AND (round(86400 * (julianday(ended_at) - julianday(started_at)), 3), cycle) < (:seconds, :after)
  AND (:job = '' OR job = :job) AND (:state = '' OR state = :state)
  AND (:text = '' OR cycle = :text
      OR instr(lower(coalesce(json_extract(result, '$.reason'), '') || char(10) || json_extract(origin, '$.topic') || char(10)
          || json_extract(origin, '$.intent') || char(10) || json_extract(origin, '$.promotions')), :text))
ORDER BY round(86400 * (julianday(ended_at) - julianday(started_at)), 3) DESC, cycle DESC LIMIT :limit;

-- name: records.shortest
-- Give the cycles that took a known time, the shortest first, from a duration and number on.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    json_extract(result, '$.reason') AS reason, telemetry,
    round(86400 * (julianday(ended_at) - julianday(started_at)), 3) AS seconds
FROM cycles INDEXED BY cycles_by_duration LEFT JOIN products USING (cycle)
WHERE state NOT IN ('queued', 'running', 'lost') AND started_at IS NOT NULL
  AND (round(86400 * (julianday(ended_at) - julianday(started_at)), 3), cycle) > (:seconds, :after)
  AND (:job = '' OR job = :job) AND (:state = '' OR state = :state)
  AND (:text = '' OR cycle = :text
      OR instr(lower(coalesce(json_extract(result, '$.reason'), '') || char(10) || json_extract(origin, '$.topic') || char(10)
          || json_extract(origin, '$.intent') || char(10) || json_extract(origin, '$.promotions')), :text))
ORDER BY round(86400 * (julianday(ended_at) - julianday(started_at)), 3), cycle LIMIT :limit;

-- name: records.count
-- Count the cycles of a job and state.
SELECT count(*) AS cycles FROM cycles INDEXED BY cycles_listed
WHERE (:job = '' OR job = :job) AND (:state = '' OR state = :state);

-- name: records.count_timed
-- Count the cycles of a job and state that took a known time.
SELECT count(*) AS cycles FROM cycles INDEXED BY cycles_by_duration
WHERE state NOT IN ('queued', 'running', 'lost') AND started_at IS NOT NULL
  AND (:job = '' OR job = :job) AND (:state = '' OR state = :state);

-- name: records.line
-- Give one cycle as lists show it.
SELECT cycle, job, state, cause, phase_date, queued_at, started_at, ended_at, timeout_seconds,
    json_extract(result, '$.reason') AS reason, telemetry, pruned_at
FROM cycles LEFT JOIN products USING (cycle) WHERE cycle = :cycle;

-- name: records.neighbours
-- Give the numbers of the ticks before and after one.
SELECT (SELECT max(tick) FROM ticks WHERE tick < :tick) AS previous,
    (SELECT min(tick) FROM ticks WHERE tick > :tick) AS following;

-- name: records.cycles_of_dates
-- Give which cycles answer the dates from one on, newest first.
SELECT cycle, phase_date FROM cycles WHERE phase_date >= :since ORDER BY phase_date DESC, cycle DESC;

-- name: records.dates
-- Count the accounted dates by result.
SELECT result, count(*) AS dates FROM phase_dates GROUP BY result;

-- name: records.beside
-- Give the numbers of the cycles before and after one.
SELECT (SELECT max(cycle) FROM cycles WHERE cycle < :cycle) AS preceding,
       (SELECT min(cycle) FROM cycles WHERE cycle > :cycle) AS following;
