-- Which cycles are still on disk, and which of them a person keeps (cycles/retention.py). Rows stay for ever.

ALTER TABLE cycles ADD COLUMN pruned_at TEXT;  -- when folder and bundle were removed

CREATE TABLE pins (
    cycle      INTEGER PRIMARY KEY,
    reason     TEXT NOT NULL,
    pinned_by  TEXT NOT NULL,
    pinned_at  TEXT NOT NULL
);

CREATE INDEX cycles_on_disk ON cycles (ended_at) WHERE pruned_at IS NULL AND settled_at IS NOT NULL;
