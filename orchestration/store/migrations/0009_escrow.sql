-- Changes that wait for a person (baseline/escrow.py). The files in escrow/ are copies.

CREATE TABLE escrow (
    entry        TEXT    PRIMARY KEY,           -- 12 hex digits, see baseline/escrow.py
    kind         TEXT    NOT NULL,              -- promotion, rollback
    stem         TEXT    NOT NULL DEFAULT '',   -- of a promotion
    promotion_id TEXT    NOT NULL DEFAULT '',   -- of a promotion
    target       INTEGER,                       -- of a rollback: the baseline version to go back to
    against      INTEGER,                       -- the version in force when it was held, null before the first
    cycle        INTEGER,                       -- the cycle that accepted the promotion, or on whose results the rollback rests
    rule         TEXT    NOT NULL,              -- what sent it here, in words
    changes      TEXT    NOT NULL,              -- JSON object: parameter to the value asked for, null to remove it
    before       TEXT    NOT NULL,              -- JSON object: parameter to the baseline's value then, null when it had none
    fitness      REAL,
    evidence     TEXT    NOT NULL,              -- JSON object, see docs/reference/escrow.md
    emitted_by   TEXT    NOT NULL DEFAULT '',   -- the OS user who owned the promotion's file, '' when unknown
    four_eyes    INTEGER NOT NULL,              -- 1 when it was held under [escrow] four_eyes
    status       TEXT    NOT NULL,              -- pending_review, approved, rejected, expired
    created_at   TEXT    NOT NULL,
    expires_at   TEXT,
    reviewed_at  TEXT,
    reviewed_by  TEXT,
    reason       TEXT    NOT NULL DEFAULT '',   -- the reviewer's
    version      INTEGER,                       -- the baseline version that an approval made
    written      INTEGER NOT NULL DEFAULT 0     -- 1 when its file says what the row says
);
CREATE INDEX escrow_pending   ON escrow (expires_at) WHERE status = 'pending_review';
CREATE INDEX escrow_unwritten ON escrow (entry) WHERE written = 0;
