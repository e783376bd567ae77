-- Which cycles' bundles are to be copied to [federation] target, and what has come of it (cycles/federation.py).

CREATE TABLE federations (
    cycle      INTEGER PRIMARY KEY,
    asked_at   TEXT NOT NULL,
    due_at     TEXT NOT NULL,               -- when it may be tried next
    failures   INTEGER NOT NULL DEFAULT 0,  -- in a row
    failed_at  TEXT,
    error      TEXT NOT NULL DEFAULT '',    -- of the last failure
    sha256     TEXT NOT NULL DEFAULT '',    -- of the bundle, once it was made
    size       INTEGER NOT NULL DEFAULT 0,
    place      TEXT NOT NULL DEFAULT '',    -- of the copy below the target; '' also when there was nothing to copy
    done_at    TEXT
);

CREATE INDEX federations_pending ON federations (due_at) WHERE done_at IS NULL;
