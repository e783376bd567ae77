-- name: pulse.now
-- Give what the gauges say that no tick has to note: it stands in the tables.
SELECT
    count(CASE WHEN job = 'phase' THEN 1 END) AS phase_active,
    count(CASE WHEN job = 'dream' THEN 1 END) AS dream_active,
    count(CASE WHEN job = 'loop' THEN 1 END) AS loop_active,
    (SELECT count(*) FROM intents WHERE filed = 0 AND status = 'pending') AS intents_pending,
    (SELECT ended_at FROM cycles WHERE job = 'phase' AND state = 'succeeded' ORDER BY cycle DESC LIMIT 1)
        AS phase_succeeded_at,
    (SELECT count(*) FROM bundles WHERE done_at IS NULL) AS bundles_pending,
    (SELECT count(*) FROM federations WHERE done_at IS NULL) AS federation_pending
FROM cycles WHERE state IN ('queued', 'running');
