-- name: phase_dates.record
-- Account for one local date; a date that has its PHASE keeps it.
INSERT INTO phase_dates (local_date, result, reason, evidence, cycle, opens_at, closes_at, recorded_at)
VALUES (:local_date, :result, :reason, :evidence, :cycle, :opens_at, :closes_at, :recorded_at)
ON CONFLICT (local_date) DO UPDATE SET
    result = excluded.result, reason = excluded.reason, evidence = excluded.evidence, cycle = excluded.cycle,
    recorded_at = excluded.recorded_at
WHERE phase_dates.result <> 'succeeded';

-- name: phase_dates.first_ahead
-- Give the first date that a clock far ahead has closed as one without a PHASE; NULL when there is none.
SELECT min(local_date) AS local_date FROM phase_dates WHERE recorded_at > :now AND result = 'skipped';

-- name: phase_dates.reopen
-- Forget the dates that a clock far ahead has closed as dates without a PHASE.
DELETE FROM phase_dates WHERE recorded_at > :now AND result = 'skipped';

-- name: phase_dates.get
-- Give what is recorded of one local date.
SELECT * FROM phase_dates WHERE local_date = :local_date;

-- name: phase_dates.recent
-- Give the newest dates.
SELECT * FROM phase_dates ORDER BY local_date DESC LIMIT :limit;

-- name: phase_dates.since
-- Give the accounted dates from one on, newest first.
SELECT * FROM phase_dates WHERE local_date >= :since ORDER BY local_date DESC;
