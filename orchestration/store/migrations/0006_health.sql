-- What Pulse needs beyond the tables of the tick: conditions with their beginnings, telemetry, and indexes for its questions.

-- The conditions that the last look at health found, each since when (pulse/health.py).
CREATE TABLE conditions (
    condition  TEXT PRIMARY KEY,
    since      TEXT NOT NULL,
    evidence   TEXT NOT NULL
) WITHOUT ROWID;

ALTER TABLE products ADD COLUMN telemetry TEXT;  -- JSON: the series in the cycle's logs/*.jsonl; NULL: not known

CREATE INDEX cycles_by_job       ON cycles (job, cycle);
CREATE INDEX cycles_lost         ON cycles (ended_at) WHERE state = 'lost';
CREATE INDEX cycles_by_start     ON cycles (started_at) WHERE started_at IS NOT NULL;
CREATE INDEX intents_overflowed  ON intents (decided_at) WHERE status = 'queue_overflow';
CREATE INDEX federations_asked   ON federations (asked_at) WHERE done_at IS NULL;
