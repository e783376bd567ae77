-- The iterations of the continuous loop (loop/ledger.py).

CREATE TABLE iterations (
    iteration     INTEGER PRIMARY KEY,
    token         TEXT    NOT NULL UNIQUE,     -- marks the processes of its prerequisites and of its cycle
    started_at    TEXT    NOT NULL,
    plan          TEXT,                        -- JSON: what it set out to do; NULL once it has ended
    cycle         INTEGER,
    status        TEXT,                        -- NULL while it runs
    ended_at      TEXT,
    next_run_at   TEXT,
    archive_new   INTEGER,                     -- NULL when its command was not run
    history_path  TEXT    NOT NULL,
    line          TEXT,                        -- its row of the history; NULL while it runs
    written       INTEGER NOT NULL DEFAULT 0   -- 1 when that row is in the file
);
CREATE INDEX iterations_unwritten ON iterations (iteration) WHERE written = 0;
CREATE INDEX iterations_by_status ON iterations (status);
