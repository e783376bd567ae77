-- The bridge: threads of agents, their messages and cursors, and the audit of all of it (bridge/state.py has the words).

CREATE TABLE bridge_threads (
    thread_id     TEXT    PRIMARY KEY,
    workspace_id  TEXT    NOT NULL,
    title         TEXT    NOT NULL,
    type          TEXT    NOT NULL,
    status        TEXT    NOT NULL,
    status_reason TEXT    NOT NULL,
    created_by    TEXT    NOT NULL,
    last_seq      INTEGER NOT NULL,
    created_at    TEXT    NOT NULL,
    updated_at    TEXT    NOT NULL,
    turns         INTEGER NOT NULL,             -- what the loop guard counts
    last_sender   TEXT    NOT NULL,
    event_types   TEXT    NOT NULL,             -- JSON array
    rate_minute   INTEGER NOT NULL,             -- posts by the minute of the clock, see state.Rate
    rate_posts    INTEGER NOT NULL,
    rate_before   INTEGER NOT NULL,
    links         INTEGER NOT NULL,             -- how long its chain of audit rows is
    head          TEXT    NOT NULL,             -- sha256 of the last of them
    version       INTEGER NOT NULL              -- rises with every change of the thread and of who is in it
) WITHOUT ROWID;
CREATE INDEX bridge_threads_by_workspace ON bridge_threads (workspace_id, thread_id);

CREATE TABLE bridge_participants (
    thread_id     TEXT    NOT NULL,
    agent_id      TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    joined_at     TEXT    NOT NULL,
    last_read_seq INTEGER NOT NULL,
    PRIMARY KEY (thread_id, agent_id)
) WITHOUT ROWID;
CREATE INDEX bridge_participants_by_agent ON bridge_participants (agent_id, thread_id);

CREATE TABLE bridge_messages (
    number          INTEGER PRIMARY KEY,        -- also its row in bridge_words
    thread_id       TEXT    NOT NULL,
    seq             INTEGER NOT NULL,           -- from 1, without gaps, in the order of commit
    message_id      TEXT    NOT NULL UNIQUE,
    sender          TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    body            TEXT    NOT NULL,
    metadata        TEXT    NOT NULL,           -- JSON object
    in_reply_to     TEXT,
    addressee       TEXT,                       -- whom it is for; null: everybody
    created_at      TEXT    NOT NULL,
    traceparent     TEXT    NOT NULL,
    thread_status   TEXT    NOT NULL,           -- where the thread stood then: part of the answer to a repeat
    idempotency_key TEXT,
    payload_sha256  TEXT    NOT NULL,
    UNIQUE (thread_id, seq)
);
CREATE UNIQUE INDEX bridge_messages_by_key ON bridge_messages (thread_id, sender, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
-- The words of each body (bridge/words.py): no text, no places, no sizes, for every page more is a slower commit.
CREATE VIRTUAL TABLE bridge_words USING fts5 (words, content = '', columnsize = 0, detail = none, tokenize = 'ascii');
INSERT INTO bridge_words (bridge_words, rank) VALUES ('pgsz', 1000);  -- 15 % less to do for a post than with 4,050 bytes

CREATE TABLE bridge_findings (
    thread_id   TEXT    NOT NULL,
    finding_id  TEXT    NOT NULL,
    state       TEXT    NOT NULL,               -- type of the last event about it
    reports     INTEGER NOT NULL,
    message_id  TEXT    NOT NULL,               -- of the event that reported it first
    reported_by TEXT    NOT NULL,
    PRIMARY KEY (thread_id, finding_id)
) WITHOUT ROWID;

CREATE TABLE bridge_rates (
    workspace_id TEXT    NOT NULL,
    agent_id     TEXT    NOT NULL,
    rate_minute  INTEGER NOT NULL,
    rate_posts   INTEGER NOT NULL,
    rate_before  INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, agent_id)
) WITHOUT ROWID;

CREATE TABLE bridge_sessions (
    workspace_id    TEXT    NOT NULL,
    agent_id        TEXT    NOT NULL,
    session_id      TEXT    NOT NULL,
    runtime         TEXT    NOT NULL,
    management_mode TEXT    NOT NULL,
    resumable       INTEGER NOT NULL,
    status          TEXT    NOT NULL,
    heartbeat_at    TEXT    NOT NULL,
    PRIMARY KEY (workspace_id, agent_id, session_id)
) WITHOUT ROWID;

CREATE TABLE bridge_triggers (
    trigger_id   TEXT PRIMARY KEY,
    thread_id    TEXT NOT NULL,
    target       TEXT NOT NULL,
    reason       TEXT NOT NULL,
    prompt       TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    status       TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    traceparent  TEXT NOT NULL                  -- of the request that asked for it
) WITHOUT ROWID;
CREATE INDEX bridge_triggers_by_thread ON bridge_triggers (thread_id, created_at);
CREATE INDEX bridge_triggers_queued ON bridge_triggers (created_at) WHERE status = 'queued';

CREATE TABLE bridge_revocations (
    token_id   TEXT PRIMARY KEY,
    expires_at TEXT NOT NULL,
    revoked_at TEXT NOT NULL,
    revoked_by TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE bridge_audit (
    entry        INTEGER PRIMARY KEY,           -- rising; a row goes only with its whole chain
    chain        TEXT    NOT NULL,              -- a thread's id, or 'workspace:' and its name
    link         INTEGER NOT NULL,              -- from 1, without gaps
    at           TEXT    NOT NULL,
    workspace_id TEXT    NOT NULL,
    actor        TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    request_id   TEXT    NOT NULL,
    operation    TEXT    NOT NULL,
    thread_id    TEXT,                          -- what was asked for, be it there or not
    outcome      TEXT    NOT NULL,
    rule         TEXT    NOT NULL,
    state_before TEXT,                          -- JSON
    state_after  TEXT,                          -- JSON
    sha256       TEXT    NOT NULL,              -- of this row and the link before it (bridge/chain.py)
    UNIQUE (chain, link)
);
CREATE INDEX bridge_audit_by_workspace ON bridge_audit (workspace_id, entry);

CREATE TABLE bridge_chains (
    workspace_id TEXT    PRIMARY KEY,
    links        INTEGER NOT NULL,
    head         TEXT    NOT NULL
) WITHOUT ROWID;
