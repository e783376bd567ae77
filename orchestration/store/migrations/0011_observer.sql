-- When each rule of the observer last made an intent, and what it saw (tick/observer.py).

CREATE TABLE observer_events (
    rule         TEXT NOT NULL,
    at           TEXT NOT NULL,
    evidence     TEXT NOT NULL,
    intent       TEXT NOT NULL                  -- name of the intent file that it left
);
CREATE INDEX observer_events_by_rule ON observer_events (rule, at);
