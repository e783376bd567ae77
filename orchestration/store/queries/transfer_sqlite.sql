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

-- name: transfer_sqlite.write_audit
-- Write an audit row under its number.
INSERT INTO bridge_audit (
    entry, chain, link, at, workspace_id, actor, role, request_id, operation, thread_id, outcome, rule, state_before,
    state_after, sha256
) VALUES (
    :entry, :chain, :link, :at, :workspace_id, :actor, :role, :request_id, :operation, :thread_id, :outcome, :rule,
    :state_before, :state_after, :sha256
);
