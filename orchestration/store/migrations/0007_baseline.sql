-- The accepted parameters, version by version (baseline/history.py). Rows are never changed but for what came of them.

CREATE TABLE baseline_versions (
    version       INTEGER PRIMARY KEY,          -- from 1, without gaps
    sha256        TEXT    NOT NULL,             -- of the version's file, which names the one before
    previous_sha  TEXT    NOT NULL UNIQUE,      -- '' for the first; unique: one version follows another once
    ts            TEXT    NOT NULL,
    actor         TEXT    NOT NULL,
    kind          TEXT    NOT NULL,             -- cycle, escrow, rollback, imported, set
    reason        TEXT    NOT NULL,
    cycle         INTEGER,
    promotion_ids TEXT    NOT NULL,             -- JSON list of stems
    parameters    TEXT    NOT NULL,             -- JSON object
    fitness       REAL,
    written       INTEGER NOT NULL DEFAULT 0    -- 1 when its files are in place
);
CREATE INDEX baseline_unwritten ON baseline_versions (version) WHERE written = 0;
