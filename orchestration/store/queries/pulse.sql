-- name: pulse.now
-- Give what the gauges say that no tick has to note: it stands in the tables.
SELECT
    count(CASE WHEN job = 'phase' THEN 1 END) AS phase_active,
    count(CASE WHEN job = 'dream' THEN 1 END) AS dream_active,
    count(CASE WHEN job = 'loop' THEN 1 END) AS loop_active,
    count(CASE WHEN job = 'reflection' THEN 1 END) AS reflection_active,
    count(CASE WHEN job = 'wake' THEN 1 END) AS wake_active,
    (SELECT count(*) FROM intents WHERE filed = 0 AND status = 'pending') AS intents_pending,
    (SELECT min(seen_at) FROM intents WHERE filed = 0 AND status = 'pending') AS intents_oldest,
    (SELECT ended_at FROM cycles WHERE job = 'phase' AND state = 'succeeded' ORDER BY cycle DESC LIMIT 1)
        AS phase_succeeded_at,
    (SELECT count(*) FROM bundles WHERE done_at IS NULL) AS bundles_pending,
    (SELECT count(*) FROM federations WHERE done_at IS NULL) AS federation_pending,
    (SELECT max(version) FROM baseline_versions) AS baseline_version,
    (SELECT ts FROM baseline_versions ORDER BY version DESC LIMIT 1) AS baseline_changed_at
FROM cycles WHERE state IN ('queued', 'running');

-- name: pulse.signs
-- Give what health is judged by and no counter says, for the spans that end now.
SELECT
    (SELECT json_group_array(exit_code) FROM (SELECT exit_code FROM ticks ORDER BY tick DESC LIMIT 3)) AS tick_exits,
    (SELECT count(*) FROM ticks WHERE started_at >= :contention_since AND exit_code = 75) AS contentions,
    (SELECT coalesce(next_run_at, ended_at) FROM iterations WHERE status IS NOT NULL ORDER BY iteration DESC LIMIT 1)
        AS iteration_at,
    (SELECT json_group_array(state) FROM (
        SELECT state FROM cycles WHERE job = 'phase' AND ended_at IS NOT NULL ORDER BY cycle DESC LIMIT 3)) AS phase_ends,
    (SELECT json_group_array(json_extract(result, '$.wall_seconds')) FROM (
        SELECT result FROM cycles WHERE job = 'phase' AND state = 'succeeded' ORDER BY cycle DESC LIMIT 15)) AS phase_seconds,
    (SELECT json_group_array(state) FROM (
        SELECT state, ended_at FROM cycles WHERE job = 'dream' AND ended_at IS NOT NULL ORDER BY cycle DESC LIMIT 10)
        WHERE ended_at >= :dream_since) AS dream_ends,
    (SELECT count(*) FROM cycles WHERE state = 'lost' AND job <> 'wake' AND ended_at >= :lost_since) AS lost,
    (SELECT count(*) FROM intents WHERE status = 'queue_overflow' AND decided_at >= :overflow_since) AS intents_dropped,
    (SELECT json_group_array(intent_type) FROM (
        SELECT intent_type FROM intents
        WHERE status = 'processed' AND priority >= 8 AND substr(intent_type, 1, 5) = 'alert' AND decided_at >= :urgent_since
        ORDER BY decided_at DESC, name, content_sha LIMIT 100)) AS urgent,
    (SELECT min(asked_at) FROM federations WHERE done_at IS NULL) AS federation_since,
    (SELECT json_array(count(*), min(created_at), min(expires_at)) FROM escrow WHERE status = 'pending_review') AS escrow,
    (SELECT json_array(version, decided_at, reason) FROM (
        SELECT version, verdict, decided_at, reason FROM baseline_verdicts ORDER BY version DESC LIMIT 5)
        WHERE verdict = 'rolled_back' AND decided_at >= :rolled_back_since LIMIT 1) AS rolled_back,
    (SELECT value FROM facts WHERE name = 'bridge.signs') AS bridge,
    (SELECT value FROM facts WHERE name = 'wake.signs') AS wake;

-- name: pulse.conditions
-- Give the conditions that the last look found, each with its beginning.
SELECT condition, since, evidence FROM conditions ORDER BY condition;

-- name: pulse.condition_holds
-- Note a condition that holds now; its beginning stays.
INSERT INTO conditions (condition, since, evidence) VALUES (:condition, :since, :evidence)
ON CONFLICT (condition) DO UPDATE SET evidence = excluded.evidence WHERE evidence <> excluded.evidence;

-- name: pulse.condition_ended
-- Forget a condition that holds no more.
DELETE FROM conditions WHERE condition = :condition;
