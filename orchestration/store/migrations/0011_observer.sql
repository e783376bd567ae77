-- What the observer's rules asked for (tick/observer.py), and the lines of output that some of them watch (cycles/sightings.py).

-- The intents that rules, and idleness, have made: the row is the truth, the file in intents/ follows it.
CREATE TABLE observer_events (
    event        INTEGER PRIMARY KEY,
    rule         TEXT    NOT NULL,              -- name of the rule, or idle_reflection
    subject      TEXT    NOT NULL DEFAULT '',   -- the program whose heartbeat is silent
    at           TEXT    NOT NULL,
    evidence     TEXT    NOT NULL,              -- JSON object: the intent's data
    intent       TEXT    NOT NULL,              -- name of the intent's file
    content      TEXT    NOT NULL,              -- of that file, until it is written
    written      INTEGER NOT NULL DEFAULT 0     -- 1 when the file was put into intents/
);
-- Lines of a cycle's output that a rule watches for; one row for a cycle and a rule. No more indexes here than are needed:
-- every tick reads the schema.
CREATE TABLE sightings (
    cycle        INTEGER NOT NULL,
    rule         TEXT    NOT NULL,
    at           TEXT    NOT NULL,              -- when the cycle's end was recorded
    number       INTEGER NOT NULL,              -- of lines
    lines        TEXT    NOT NULL,              -- JSON list of the first of them
    PRIMARY KEY (cycle, rule)
) WITHOUT ROWID;

CREATE INDEX promotions_by_arrival ON promotions (first_seen_at);
