-- Which host runs a cycle, and which may, where several share a store (PostgreSQL); alone, both stay empty.

ALTER TABLE cycles ADD COLUMN hosts TEXT NOT NULL DEFAULT '';  -- JSON list of the hosts that may run it; '' for any
ALTER TABLE cycles ADD COLUMN host  TEXT NOT NULL DEFAULT '';  -- whose runner took it; '' until then

-- When the hosts of a scope ticked last: filled only where a scope's PostgreSQL is copied for explaining (store/postgres_copy.py).
CREATE TABLE host_ticks (
    host          TEXT PRIMARY KEY,
    last_tick_at  TEXT
);
