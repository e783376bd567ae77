-- Reading and filling every table of the bridge whole, to copy a store and to compare the copy. Orders are those of the keys' bytes.

-- name: transfer_sqlite.threads
-- Give every row of bridge_threads.
SELECT * FROM bridge_threads ORDER BY thread_id;

-- name: transfer_sqlite.participants
-- Give every row of bridge_participants.
SELECT * FROM bridge_participants ORDER BY thread_id, agent_id;

-- name: transfer_sqlite.messages
-- Give every row of bridge_messages.
SELECT thread_id, seq, message_id, sender, kind, body, metadata, in_reply_to, addressee, created_at, traceparent,
    thread_status, idempotency_key, payload_sha256
FROM bridge_messages ORDER BY thread_id, seq;

-- name: transfer_sqlite.findings
-- Give every row of bridge_findings.
SELECT * FROM bridge_findings ORDER BY thread_id, finding_id;

-- name: transfer_sqlite.rates
-- Give every row of bridge_rates.
SELECT * FROM bridge_rates ORDER BY workspace_id, agent_id;

-- name: transfer_sqlite.sessions
-- Give every row of bridge_sessions.
SELECT * FROM bridge_sessions ORDER BY workspace_id, agent_id, session_id;

-- name: transfer_sqlite.triggers
-- Give every row of bridge_triggers.
SELECT * FROM bridge_triggers ORDER BY trigger_id;

-- name: transfer_sqlite.revocations
-- Give every row of bridge_revocations.
SELECT * FROM bridge_revocations ORDER BY token_id;

-- name: transfer_sqlite.audit
-- Give every row of bridge_audit.
SELECT * FROM bridge_audit ORDER BY entry;

-- name: transfer_sqlite.chains
-- Give every row of bridge_chains.
SELECT * FROM bridge_chains ORDER BY workspace_id;

-- name: transfer_sqlite.wake_states
-- Give every row of bridge_wake_states.
SELECT * FROM bridge_wake_states ORDER BY trigger_id;

-- name: transfer_sqlite.wake_attempts
-- Give every row of bridge_wake_attempts.
SELECT * FROM bridge_wake_attempts ORDER BY trigger_id, number;

-- name: transfer_sqlite.session_writers
-- Give every row of bridge_session_writers.
SELECT * FROM bridge_session_writers ORDER BY session_id;

-- name: transfer_sqlite.pauses
-- Give every row of bridge_pauses.
SELECT * FROM bridge_pauses ORDER BY workspace_id, agent_id;

-- name: transfer_sqlite.write_audit
-- Write an audit row under its number.
INSERT INTO bridge_audit (
    entry, chain, link, at, workspace_id, actor, role, request_id, operation, thread_id, outcome, rule, state_before,
    state_after, sha256
) VALUES (
    :entry, :chain, :link, :at, :workspace_id, :actor, :role, :request_id, :operation, :thread_id, :outcome, :rule,
    :state_before, :state_after, :sha256
);

-- name: transfer_sqlite.write_wake_states
-- Write a row of bridge_wake_states.
INSERT INTO bridge_wake_states VALUES (
    :trigger_id, :thread_id, :agent_id, :leader, :forced, :due_at, :holder, :fence, :lease_until, :deferred_at,
    :deferrals, :renewed_at, :outcome, :code, :detail, :ended_at
);

-- name: transfer_sqlite.write_wake_attempts
-- Write a row of bridge_wake_attempts.
INSERT INTO bridge_wake_attempts VALUES (
    :trigger_id, :number, :workspace_id, :thread_id, :agent_id, :way, :session_id, :holder, :fence, :cycle, :began_at,
    :read_seq, :ended_at, :outcome, :code, :detail
);

-- name: transfer_sqlite.write_session_writers
-- Write a row of bridge_session_writers.
INSERT INTO bridge_session_writers VALUES (
    :session_id, :holder, :fence, :lease_until
);

-- name: transfer_sqlite.write_pauses
-- Write a row of bridge_pauses.
INSERT INTO bridge_pauses VALUES (
    :workspace_id, :agent_id, :paused_at, :paused_by
);
