-- Cycles that Slurm runs (cycles/slurm/executor.py).

ALTER TABLE cycles ADD COLUMN executor TEXT NOT NULL DEFAULT 'local';  -- who runs it: local, slurm

CREATE TABLE slurm_jobs (
    cycle         INTEGER PRIMARY KEY,
    job_id        INTEGER,                   -- NULL until Slurm has taken it, and after it has forgotten it
    submitted_at  TEXT,
    state         TEXT NOT NULL DEFAULT '',  -- in Slurm's words, when it was seen last
    reason        TEXT NOT NULL DEFAULT '',  -- why it waits; or why nobody can tell
    nodes         TEXT NOT NULL DEFAULT '',
    gpus          TEXT NOT NULL DEFAULT '',
    missed_since  TEXT                       -- since when Slurm or the step's record does not say what it should
);
