-- Reading and filling every table of the bridge whole, to copy a store and to compare the copy. Orders are those of the keys' bytes.

-- name: transfer_postgres.threads
-- Give every row of bridge_threads.
SELECT * FROM bridge_threads ORDER BY thread_id COLLATE "C";

-- name: transfer_postgres.participants
-- Give every row of bridge_participants.
SELECT * FROM bridge_participants ORDER BY thread_id COLLATE "C", agent_id COLLATE "C";

-- name: transfer_postgres.messages
-- Give every row of bridge_messages.
SELECT thread_id, seq, message_id, sender, kind, body, metadata, in_reply_to, addressee, created_at, traceparent,
    thread_status, idempotency_key, payload_sha256
FROM bridge_messages ORDER BY thread_id COLLATE "C", seq;

-- name: transfer_postgres.findings
-- Give every row of bridge_findings.
SELECT * FROM bridge_findings ORDER BY thread_id COLLATE "C", finding_id COLLATE "C";

-- name: transfer_postgres.rates
-- Give every row of bridge_rates.
SELECT * FROM bridge_rates ORDER BY workspace_id COLLATE "C", agent_id COLLATE "C";

-- name: transfer_postgres.sessions
-- Give every row of bridge_sessions.
SELECT * FROM bridge_sessions ORDER BY workspace_id COLLATE "C", agent_id COLLATE "C", session_id COLLATE "C";

-- name: transfer_postgres.triggers
-- Give every row of bridge_triggers.
SELECT * FROM bridge_triggers ORDER BY trigger_id COLLATE "C";

-- name: transfer_postgres.revocations
-- Give every row of bridge_revocations.
SELECT * FROM bridge_revocations ORDER BY token_id COLLATE "C";

-- name: transfer_postgres.audit
-- Give every row of bridge_audit.
SELECT * FROM bridge_audit ORDER BY entry;

-- name: transfer_postgres.chains
-- Give every row of bridge_chains.
SELECT * FROM bridge_chains ORDER BY workspace_id COLLATE "C";

-- name: transfer_postgres.wake_states
-- Give every row of bridge_wake_states.
SELECT * FROM bridge_wake_states ORDER BY trigger_id COLLATE "C";

-- name: transfer_postgres.wake_attempts
-- Give every row of bridge_wake_attempts.
SELECT * FROM bridge_wake_attempts ORDER BY trigger_id COLLATE "C", number;

-- name: transfer_postgres.session_writers
-- Give every row of bridge_session_writers.
SELECT * FROM bridge_session_writers ORDER BY session_id COLLATE "C";

-- name: transfer_postgres.pauses
-- Give every row of bridge_pauses.
SELECT * FROM bridge_pauses ORDER BY workspace_id COLLATE "C", agent_id COLLATE "C";

-- name: transfer_postgres.write_threads
-- Write rows of bridge_threads.
INSERT INTO bridge_threads SELECT * FROM json_populate_recordset(NULL::bridge_threads, :rows);

-- name: transfer_postgres.write_participants
-- Write rows of bridge_participants.
INSERT INTO bridge_participants SELECT * FROM json_populate_recordset(NULL::bridge_participants, :rows);

-- name: transfer_postgres.write_messages
-- Write messages.
INSERT INTO bridge_messages
SELECT thread_id, seq, message_id, sender, kind, body, metadata, in_reply_to, addressee, created_at, traceparent,
       thread_status, idempotency_key, payload_sha256, array_to_tsvector(array_remove(string_to_array(words, ' '), ''))
FROM json_to_recordset(:rows) AS post (
    thread_id text, seq bigint, message_id text, sender text, kind text, body text, metadata text, in_reply_to text,
    addressee text, created_at timestamptz, traceparent text, thread_status text, idempotency_key text,
    payload_sha256 text, words text);

-- name: transfer_postgres.write_findings
-- Write rows of bridge_findings.
INSERT INTO bridge_findings SELECT * FROM json_populate_recordset(NULL::bridge_findings, :rows);

-- name: transfer_postgres.write_rates
-- Write rows of bridge_rates.
INSERT INTO bridge_rates SELECT * FROM json_populate_recordset(NULL::bridge_rates, :rows);

-- name: transfer_postgres.write_sessions
-- Write rows of bridge_sessions.
INSERT INTO bridge_sessions SELECT * FROM json_populate_recordset(NULL::bridge_sessions, :rows);

-- name: transfer_postgres.write_triggers
-- Write rows of bridge_triggers.
INSERT INTO bridge_triggers SELECT * FROM json_populate_recordset(NULL::bridge_triggers, :rows);

-- name: transfer_postgres.write_revocations
-- Write rows of bridge_revocations.
INSERT INTO bridge_revocations SELECT * FROM json_populate_recordset(NULL::bridge_revocations, :rows);

-- name: transfer_postgres.write_audit
-- Write audit rows under their numbers.
INSERT INTO bridge_audit OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::bridge_audit, :rows);

-- name: transfer_postgres.write_chains
-- Write rows of bridge_chains.
INSERT INTO bridge_chains SELECT * FROM json_populate_recordset(NULL::bridge_chains, :rows);

-- name: transfer_postgres.write_wake_states
-- Write rows of bridge_wake_states.
INSERT INTO bridge_wake_states SELECT * FROM json_populate_recordset(NULL::bridge_wake_states, :rows);

-- name: transfer_postgres.write_wake_attempts
-- Write rows of bridge_wake_attempts.
INSERT INTO bridge_wake_attempts SELECT * FROM json_populate_recordset(NULL::bridge_wake_attempts, :rows);

-- name: transfer_postgres.write_session_writers
-- Write rows of bridge_session_writers.
INSERT INTO bridge_session_writers SELECT * FROM json_populate_recordset(NULL::bridge_session_writers, :rows);

-- name: transfer_postgres.write_pauses
-- Write rows of bridge_pauses.
INSERT INTO bridge_pauses SELECT * FROM json_populate_recordset(NULL::bridge_pauses, :rows);

-- name: transfer_postgres.number_on
-- Let the audit's numbers go on after the last of them.
SELECT setval(pg_get_serial_sequence('bridge_audit', 'entry'), greatest(max(entry), 1), max(entry) IS NOT NULL)
FROM bridge_audit;

-- name: transfer_postgres.one_snapshot
-- See all of this transaction as it was at its start, and change nothing.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- name: transfer_postgres.patience
-- Wait for others' locks this long at most.
SET LOCAL lock_timeout = '5s';

-- name: transfer_postgres.lock
-- Keep others from every table until the end of the transaction.
LOCK TABLE bridge_threads, bridge_participants, bridge_messages, bridge_findings, bridge_rates, bridge_sessions,
    bridge_triggers, bridge_revocations, bridge_audit, bridge_chains, bridge_wake_states, bridge_wake_attempts,
    bridge_session_writers, bridge_pauses IN EXCLUSIVE MODE;

-- name: transfer_postgres.empty
-- Take every row out.
TRUNCATE bridge_threads, bridge_participants, bridge_messages, bridge_findings, bridge_rates, bridge_sessions,
    bridge_triggers, bridge_revocations, bridge_audit, bridge_chains, bridge_wake_states, bridge_wake_attempts,
    bridge_session_writers, bridge_pauses;

-- name: transfer_postgres.others
-- Count who else is at work in this database.
SELECT count(*) AS others FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';

-- name: transfer_postgres.has_schema
-- Tell whether migrations were ever applied.
SELECT to_regclass('kloros_schema') IS NOT NULL AS there;
