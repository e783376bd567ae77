-- Which host runs a cycle, and which may, where several share a store (PostgreSQL); alone, both stay empty.

ALTER TABLE cycles ADD COLUMN hosts TEXT NOT NULL DEFAULT '';  -- JSON list of the hosts that may run it; '' for any
ALTER TABLE cycles ADD COLUMN host  TEXT NOT NULL DEFAULT '';  -- whose runner took it; '' until then
