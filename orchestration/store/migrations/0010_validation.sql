-- What each PHASE was worth, under which version of the baseline, and what was concluded (baseline/validation.py).

ALTER TABLE cycles ADD COLUMN baseline_began INTEGER;  -- version whose files were in force when it was claimed; 0 before the first
ALTER TABLE cycles ADD COLUMN baseline_ended INTEGER;  -- newest version when it ended

-- Results outlive the folders of their cycles (phase/result.py).
CREATE TABLE phase_results (
    cycle        INTEGER PRIMARY KEY,
    version      INTEGER,                       -- of the baseline, 0 before the first; NULL: it changed meanwhile
    phase_type   TEXT NOT NULL,                 -- as advised; '' without hints
    measure      TEXT NOT NULL,                 -- what the number is of: only the same can be compared
    result       REAL NOT NULL,                 -- higher is better
    ended_at     TEXT NOT NULL
);
CREATE INDEX phase_results_by_version ON phase_results (version, cycle);

CREATE TABLE baseline_verdicts (
    version      INTEGER PRIMARY KEY,
    verdict      TEXT NOT NULL,                 -- kept, neutral, rolled_back, escrowed, worse (nothing done); no row: undecided
    before       TEXT NOT NULL,                 -- JSON list of the PHASE results compared with, oldest first
    after        TEXT NOT NULL,                 -- JSON list of the PHASE results under this version, oldest first
    phases       TEXT NOT NULL,                 -- JSON: the cycles of both lists, {"before": [], "after": []}
    change       REAL NOT NULL,                 -- median of the relative changes, +0.02 for +2 %
    reason       TEXT NOT NULL,
    cycle        INTEGER NOT NULL,              -- the PHASE whose settling decided it
    made         INTEGER,                       -- the version that a rollback made
    entry        TEXT,                          -- the escrow entry that asks a person instead
    decided_at   TEXT NOT NULL
);

ALTER TABLE baseline_versions ADD COLUMN retired_at TEXT;  -- when retention let its file go; its row stays
