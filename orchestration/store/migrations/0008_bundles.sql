-- The bundles of finished cycles (cycles/packing.py), and finding what is old (tick/expire.py).

CREATE TABLE bundles (
    cycle      INTEGER PRIMARY KEY,
    due_at     TEXT NOT NULL,               -- from when a tick has it made, if no runner has until then
    failures   INTEGER NOT NULL DEFAULT 0,  -- in a row
    error      TEXT NOT NULL DEFAULT '',    -- of the last failure
    sha256     TEXT NOT NULL DEFAULT '',    -- '' also when there was nothing to put into one
    size       INTEGER NOT NULL DEFAULT 0,
    done_at    TEXT
);

CREATE INDEX bundles_pending ON bundles (due_at) WHERE done_at IS NULL;
CREATE INDEX intents_by_age ON intents (decided_at) WHERE filed = 1;
