-- Accepted promotions that wait for a person (baseline/escrow.py). The files in escrow/ are copies.

CREATE TABLE escrow (
    entry        TEXT    PRIMARY KEY,           -- 12 hex digits, of the cycle's token and the promotion's stem
    stem         TEXT    NOT NULL,
    promotion_id TEXT    NOT NULL,
    cycle        INTEGER NOT NULL,
    rule         TEXT    NOT NULL,              -- what sent it here, in words
    changes      TEXT    NOT NULL,              -- JSON object: parameter to the value asked for
    before       TEXT    NOT NULL,              -- JSON object: parameter to the baseline's value then, null when it had none
    fitness      REAL,
    evidence     TEXT    NOT NULL,              -- JSON object, see baseline/escrow.py
    emitted_by   TEXT    NOT NULL DEFAULT '',   -- the OS user who owned the promotion's file
    status       TEXT    NOT NULL,              -- pending_review, approved, rejected, expired
    created_at   TEXT    NOT NULL,
    expires_at   TEXT,
    reviewed_at  TEXT,
    reviewed_by  TEXT,
    reason       TEXT    NOT NULL DEFAULT '',
    version      INTEGER,                       -- the baseline version that an approval made
    written      INTEGER NOT NULL DEFAULT 0     -- 1 when its file says what the row says
);
CREATE INDEX escrow_pending   ON escrow (expires_at) WHERE status = 'pending_review';
CREATE INDEX escrow_unwritten ON escrow (entry) WHERE written = 0;
