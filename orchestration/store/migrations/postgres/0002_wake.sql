-- Waking: how far each trigger has come, every attempt, and who may write to a runtime's session (bridge/wake/state.py has
-- the words). Tables as in ../0013_wake.sql.

CREATE TABLE bridge_wake_states (
    trigger_id  text        PRIMARY KEY,
    thread_id   text        NOT NULL,
    agent_id    text        NOT NULL,
    leader      text,
    forced      bigint      NOT NULL,
    due_at      timestamptz NOT NULL,
    holder      text        NOT NULL,
    fence       bigint      NOT NULL,
    lease_until timestamptz,
    deferred_at timestamptz,
    deferrals   bigint      NOT NULL,
    renewed_at  timestamptz,
    outcome     text,
    code        text,
    detail      text        NOT NULL,
    ended_at    timestamptz
) WITH (fillfactor = 40);   -- a row is written anew with every claim and renewal
CREATE UNIQUE INDEX bridge_wake_states_claimed ON bridge_wake_states (thread_id, agent_id) WHERE holder <> '';
CREATE INDEX bridge_wake_states_by_thread ON bridge_wake_states (thread_id);
CREATE INDEX bridge_wake_states_by_leader ON bridge_wake_states (leader) WHERE leader IS NOT NULL;

CREATE TABLE bridge_wake_attempts (
    trigger_id   text        NOT NULL,
    number       bigint      NOT NULL,
    workspace_id text        NOT NULL,
    thread_id    text        NOT NULL,
    agent_id     text        NOT NULL,
    way          text        NOT NULL,
    session_id   text        NOT NULL,
    holder       text        NOT NULL,
    fence        bigint      NOT NULL,
    cycle        bigint,
    began_at     timestamptz NOT NULL,
    read_seq     bigint      NOT NULL,
    ended_at     timestamptz,
    outcome      text,
    code         text,
    detail       text        NOT NULL,
    PRIMARY KEY (trigger_id, number)
);
CREATE INDEX bridge_wake_attempts_by_thread ON bridge_wake_attempts (thread_id, agent_id, began_at);
CREATE INDEX bridge_wake_attempts_failed ON bridge_wake_attempts (workspace_id, agent_id, ended_at)
    WHERE outcome = 'failed' AND way <> 'live';

CREATE TABLE bridge_session_writers (
    session_id  text        PRIMARY KEY,
    holder      text        NOT NULL,
    fence       bigint      NOT NULL,
    lease_until timestamptz NOT NULL
) WITH (fillfactor = 40);

CREATE TABLE bridge_pauses (
    workspace_id text        NOT NULL,
    agent_id     text        NOT NULL,
    paused_at    timestamptz NOT NULL,
    paused_by    text        NOT NULL,
    PRIMARY KEY (workspace_id, agent_id)
);

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

CREATE FUNCTION bridge_wakes_go() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM bridge_wake_states WHERE thread_id = OLD.thread_id;
    DELETE FROM bridge_wake_attempts WHERE thread_id = OLD.thread_id;
    RETURN NULL;
END $$;
CREATE TRIGGER bridge_wakes_go AFTER DELETE ON bridge_threads FOR EACH ROW EXECUTE FUNCTION bridge_wakes_go();
