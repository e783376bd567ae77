-- Waking: how far each trigger has come, every attempt, and who may write to a runtime's session (bridge/wake/state.py has
-- the words). A trigger is open while bridge_triggers says 'queued'.

CREATE TABLE bridge_wake_states (
    trigger_id  TEXT    PRIMARY KEY,            -- from its first claim on, or from when an operator steers it
    thread_id   TEXT    NOT NULL,
    agent_id    TEXT    NOT NULL,
    leader      TEXT,                           -- the trigger that this one was taken into, and ends with
    forced      INTEGER NOT NULL,
    due_at      TEXT    NOT NULL,
    holder      TEXT    NOT NULL,               -- who has claimed it; empty: nobody
    fence       INTEGER NOT NULL,
    lease_until TEXT,
    deferred_at TEXT,
    deferrals   INTEGER NOT NULL,
    renewed_at  TEXT,
    outcome     TEXT,
    code        TEXT,
    detail      TEXT    NOT NULL,
    ended_at    TEXT
) WITHOUT ROWID;
CREATE UNIQUE INDEX bridge_wake_states_claimed ON bridge_wake_states (thread_id, agent_id) WHERE holder <> '';
CREATE INDEX bridge_wake_states_by_thread ON bridge_wake_states (thread_id);
CREATE INDEX bridge_wake_states_by_leader ON bridge_wake_states (leader) WHERE leader IS NOT NULL;

CREATE TABLE bridge_wake_attempts (
    trigger_id   TEXT    NOT NULL,
    number       INTEGER NOT NULL,
    workspace_id TEXT    NOT NULL,
    thread_id    TEXT    NOT NULL,
    agent_id     TEXT    NOT NULL,
    way          TEXT    NOT NULL,
    session_id   TEXT    NOT NULL,
    holder       TEXT    NOT NULL,
    fence        INTEGER NOT NULL,
    cycle        INTEGER,
    began_at     TEXT    NOT NULL,
    read_seq     INTEGER NOT NULL,              -- the agent's cursor then
    ended_at     TEXT,
    outcome      TEXT,
    code         TEXT,
    detail       TEXT    NOT NULL,
    PRIMARY KEY (trigger_id, number)
) WITHOUT ROWID;
CREATE INDEX bridge_wake_attempts_by_thread ON bridge_wake_attempts (thread_id, agent_id, began_at);
CREATE INDEX bridge_wake_attempts_failed ON bridge_wake_attempts (workspace_id, agent_id, ended_at)
    WHERE outcome = 'failed' AND way <> 'live';

CREATE TABLE bridge_session_writers (
    session_id  TEXT    PRIMARY KEY,
    holder      TEXT    NOT NULL,
    fence       INTEGER NOT NULL,               -- rises with every holder
    lease_until TEXT    NOT NULL
) WITHOUT ROWID;

CREATE TABLE bridge_pauses (
    workspace_id TEXT NOT NULL,
    agent_id     TEXT NOT NULL,                 -- left alone as long as the row is here
    paused_at    TEXT NOT NULL,
    paused_by    TEXT NOT NULL,
    PRIMARY KEY (workspace_id, agent_id)
) WITHOUT ROWID;

-- Every trigger with its state, claimed or not.
CREATE VIEW bridge_wakes AS
SELECT t.trigger_id, h.workspace_id, t.thread_id, t.target AS agent_id, t.reason, t.prompt, t.requested_by, t.created_at,
       t.traceparent, t.status AS trigger_status,
       CASE WHEN t.status = 'queued' AND s.holder <> '' THEN 'claimed' ELSE t.status END AS status,
       s.leader, coalesce(s.forced, 0) AS forced, coalesce(s.due_at, t.created_at) AS due_at,
       coalesce(s.renewed_at, t.created_at) AS queued_at, coalesce(s.holder, '') AS holder, coalesce(s.fence, 0) AS fence,
       s.lease_until, s.deferred_at, coalesce(s.deferrals, 0) AS deferrals, s.renewed_at, s.outcome, s.code,
       coalesce(s.detail, '') AS detail, s.ended_at
FROM bridge_triggers t
JOIN bridge_threads h ON h.thread_id = t.thread_id
LEFT JOIN bridge_wake_states s ON s.trigger_id = t.trigger_id;

-- What is told of waking goes with its thread, whoever removes that.
CREATE TRIGGER bridge_wakes_go AFTER DELETE ON bridge_threads BEGIN
    DELETE FROM bridge_wake_states WHERE thread_id = OLD.thread_id;
    DELETE FROM bridge_wake_attempts WHERE thread_id = OLD.thread_id;
END;
