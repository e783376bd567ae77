-- What became of the PHASE results after each version of the baseline (baseline/validation.py).

CREATE TABLE baseline_verdicts (
    version      INTEGER PRIMARY KEY,
    verdict      TEXT NOT NULL,                 -- kept, neutral, rolled_back, escrowed; no row: undecided yet
    before       TEXT NOT NULL,                 -- JSON list of the PHASE results compared with, oldest first
    after        TEXT NOT NULL,                 -- JSON list of the PHASE results under this version, oldest first
    change       REAL NOT NULL,                 -- relative change of the median, +0.02 for +2 %
    reason       TEXT NOT NULL,
    decided_at   TEXT NOT NULL
);
