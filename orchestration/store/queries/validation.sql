-- name: validation.note_result
-- Note what a PHASE came to, under the baseline that was in force all the time it ran, if one was and the result counts.
INSERT INTO phase_results (cycle, version, phase_type, measure, result, ended_at)
SELECT cycle, CASE WHEN :counts = 1 AND baseline_began = baseline_ended THEN baseline_began END,
    :phase_type, :measure, :result, ended_at
FROM cycles WHERE cycle = :cycle
ON CONFLICT (cycle) DO UPDATE SET version = excluded.version, phase_type = excluded.phase_type,
    measure = excluded.measure, result = excluded.result, ended_at = excluded.ended_at;

-- name: validation.version_of
-- Give the version of the baseline that a PHASE's result counts for; no row when it has none.
SELECT version FROM phase_results WHERE cycle = :cycle AND version IS NOT NULL;

-- name: validation.result
-- Give the result of one PHASE.
SELECT result, measure, phase_type, version FROM phase_results WHERE cycle = :cycle;

-- name: validation.results
-- Give the newest results under one version of the baseline, newest first.
SELECT cycle, phase_type, measure, result FROM phase_results WHERE version = :version ORDER BY cycle DESC LIMIT :limit;

-- name: validation.conclude
-- Note the verdict on a version, once.
INSERT INTO baseline_verdicts (version, verdict, before, after, phases, change, reason, cycle, made, entry, decided_at)
VALUES (:version, :verdict, :before, :after, :phases, :change, :reason, :cycle, :made, :entry, :now)
ON CONFLICT (version) DO NOTHING;

-- name: validation.verdict
-- Give the verdict on a version.
SELECT * FROM baseline_verdicts WHERE version = :version;

-- name: validation.verdicts
-- Give the verdicts on the versions of a span.
SELECT * FROM baseline_verdicts WHERE version BETWEEN :first AND :last ORDER BY version;

-- name: validation.forget
-- Forget the result of a cycle whose number is run again.
DELETE FROM phase_results WHERE cycle = :cycle;
