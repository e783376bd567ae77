-- The tables of the tick: what ran, why, and what came of it.

CREATE TABLE ticks (
    tick        INTEGER PRIMARY KEY,
    tick_id     TEXT    NOT NULL UNIQUE,
    started_at  TEXT    NOT NULL,
    ended_at    TEXT    NOT NULL,
    boot_id     TEXT    NOT NULL,
    decision    TEXT    NOT NULL,  -- phase, dream_cycle, noop, skipped
    exit_code   INTEGER NOT NULL,
    cycle       INTEGER,
    blocker     TEXT,              -- inside the PHASE window: why this tick started no PHASE
    findings    TEXT    NOT NULL   -- JSON list of [rule, reason, evidence], in order of precedence
);
CREATE INDEX ticks_by_time ON ticks (started_at);

CREATE TABLE cycles (
    cycle             INTEGER PRIMARY KEY,
    job               TEXT    NOT NULL,  -- phase, dream
    state             TEXT    NOT NULL,
    token             TEXT    NOT NULL UNIQUE,
    cause             TEXT    NOT NULL,  -- window, missed_window, promotions, intent
    origin            TEXT    NOT NULL,  -- JSON: what asked for it, see cycles/cycle.py
    command           TEXT    NOT NULL,  -- JSON list
    working_dir       TEXT    NOT NULL DEFAULT '',  -- '' for the cycle's own folder
    timeout_seconds   REAL    NOT NULL,
    phase_date        TEXT,              -- the local date that a PHASE answers
    queued_at         TEXT    NOT NULL,
    started_at        TEXT,
    ended_at          TEXT,
    settled_at        TEXT,
    cancel_asked_at   TEXT,
    runner            TEXT,              -- JSON, for people
    result            TEXT               -- JSON: see cycles/cycle.py
);
CREATE INDEX cycles_active    ON cycles (state) WHERE state IN ('queued', 'running');
CREATE INDEX cycles_unsettled ON cycles (cycle) WHERE settled_at IS NULL;
CREATE INDEX cycles_by_cause  ON cycles (job, cause, cycle);
CREATE INDEX cycles_succeeded ON cycles (job, cycle) WHERE state = 'succeeded';
CREATE INDEX cycles_by_date   ON cycles (phase_date) WHERE phase_date IS NOT NULL;

CREATE TABLE phase_dates (
    local_date   TEXT PRIMARY KEY,
    result       TEXT NOT NULL,          -- succeeded, failed, skipped
    reason       TEXT NOT NULL,
    evidence     TEXT NOT NULL,
    cycle        INTEGER,
    opens_at     TEXT NOT NULL,
    closes_at    TEXT NOT NULL,
    recorded_at  TEXT NOT NULL
);

CREATE TABLE promotions (
    stem           TEXT PRIMARY KEY,
    promotion_id   TEXT NOT NULL,
    state          TEXT NOT NULL,
    failures       INTEGER NOT NULL DEFAULT 0,
    fitness        REAL,
    reason         TEXT NOT NULL DEFAULT '',
    first_seen_at  TEXT NOT NULL,
    changed_at     TEXT NOT NULL,
    cycle          INTEGER
);
CREATE INDEX promotions_parked ON promotions (stem) WHERE state = 'parked';

CREATE TABLE legacy_acks (
    file_name     TEXT PRIMARY KEY,
    promotion_id  TEXT NOT NULL
);

CREATE TABLE intents (
    name         TEXT NOT NULL,
    content_sha  TEXT NOT NULL,
    intent_type  TEXT NOT NULL,
    priority     INTEGER NOT NULL,
    status       TEXT NOT NULL,
    reason       TEXT NOT NULL DEFAULT '',
    seen_at      TEXT NOT NULL,
    decided_at   TEXT NOT NULL,
    cycle        INTEGER,
    filed        INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, content_sha, decided_at)
);
CREATE INDEX intents_by_content ON intents (content_sha, decided_at);
CREATE INDEX intents_unfiled    ON intents (name) WHERE filed = 0;

CREATE TABLE counters (
    name    TEXT NOT NULL,
    labels  TEXT NOT NULL,
    value   REAL NOT NULL,
    PRIMARY KEY (name, labels)
) WITHOUT ROWID;

CREATE TABLE facts (
    name   TEXT PRIMARY KEY,
    value  TEXT NOT NULL
) WITHOUT ROWID;
