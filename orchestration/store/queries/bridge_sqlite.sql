-- What the bridge asks of SQLite in its own dialect: the facts of a batch, and its rows. Lists go in as JSON arrays.

-- name: bridge_sqlite.threads
-- Give the threads of a batch.
SELECT * FROM bridge_threads WHERE thread_id IN (SELECT value FROM json_each(:ids));

-- name: bridge_sqlite.members
-- Give who is in the threads of a batch.
SELECT * FROM bridge_participants WHERE thread_id IN (SELECT value FROM json_each(:ids));

-- name: bridge_sqlite.rates
-- Give how often agents posted.
SELECT r.* FROM json_each(:keys) k
JOIN bridge_rates r ON r.workspace_id = k.value ->> 0 AND r.agent_id = k.value ->> 1;

-- name: bridge_sqlite.key
-- Give the post that an idempotency key stands for.
SELECT thread_id, sender, idempotency_key, message_id, seq, thread_status, created_at, payload_sha256
FROM bridge_messages WHERE thread_id = ? AND sender = ? AND idempotency_key = ?;

-- name: bridge_sqlite.findings
-- Give where findings stand.
SELECT f.* FROM json_each(:keys) k
JOIN bridge_findings f ON f.thread_id = k.value ->> 0 AND f.finding_id = k.value ->> 1;

-- name: bridge_sqlite.replies
-- Give the threads of messages.
SELECT message_id, thread_id FROM bridge_messages WHERE message_id IN (SELECT value FROM json_each(:ids));

-- name: bridge_sqlite.sessions
-- Give sessions by their ids.
SELECT s.* FROM json_each(:keys) k
JOIN bridge_sessions s
  ON s.workspace_id = k.value ->> 0 AND s.agent_id = k.value ->> 1 AND s.session_id = k.value ->> 2;

-- name: bridge_sqlite.heads
-- Give the heads of workspaces' chains.
SELECT * FROM bridge_chains WHERE workspace_id IN (SELECT value FROM json_each(:ids));

-- name: bridge_sqlite.write_created
-- Make a thread.
INSERT INTO bridge_threads VALUES (
    :thread_id, :workspace_id, :title, :type, :status, :status_reason, :created_by, :last_seq, :created_at, :updated_at,
    :turns, :last_sender, :event_types, :rate_minute, :rate_posts, :rate_before, :links, :head, :version
);

-- name: bridge_sqlite.write_threads
-- Change where a thread stands, if nobody has since it was looked at.
UPDATE bridge_threads SET
    status = :status, status_reason = :status_reason, last_seq = :last_seq, updated_at = :updated_at, turns = :turns,
    last_sender = :last_sender, event_types = :event_types, rate_minute = :rate_minute, rate_posts = :rate_posts,
    rate_before = :rate_before, links = :links, head = :head, version = :version
WHERE thread_id = :thread_id AND version = :version - 1;

-- name: bridge_sqlite.write_joined
-- Put a participant into a thread, or its cursor elsewhere.
INSERT INTO bridge_participants VALUES (:thread_id, :agent_id, :role, :joined_at, :last_read_seq)
ON CONFLICT (thread_id, agent_id) DO UPDATE SET
    role = excluded.role, joined_at = excluded.joined_at, last_read_seq = excluded.last_read_seq;

-- name: bridge_sqlite.write_left
-- Take a participant out of a thread.
DELETE FROM bridge_participants WHERE thread_id = :thread_id AND agent_id = :agent_id;

-- name: bridge_sqlite.write_posts
-- Write a message.
INSERT INTO bridge_messages (
    thread_id, seq, message_id, sender, kind, body, metadata, in_reply_to, addressee, created_at,
    traceparent, thread_status, idempotency_key, payload_sha256
) VALUES (
    :thread_id, :seq, :message_id, :sender, :kind, :body, :metadata, :in_reply_to, :addressee, :created_at,
    :traceparent, :thread_status, :idempotency_key, :payload_sha256
);

-- name: bridge_sqlite.not_indexed
-- Give the next messages whose words are not indexed, as JSON, the last one's number, and that of the newest there is.
SELECT json_group_array(json_array(number, body)) AS messages, max(number) AS last,
       (SELECT max(number) FROM bridge_messages) AS newest
FROM (
    SELECT number, body, sum(length(body)) OVER (ORDER BY number) - length(body) AS before
    FROM (
        SELECT number, body FROM bridge_messages
        WHERE number > (SELECT number FROM bridge_indexed) ORDER BY number LIMIT :messages
    )
) WHERE before < :characters;

-- name: bridge_sqlite.write_words
-- Write the words of messages, each under its number.
INSERT INTO bridge_words (rowid, words) SELECT value ->> 0, value ->> 1 FROM json_each(:words);

-- name: bridge_sqlite.move_indexed
-- Say up to where words are indexed.
UPDATE bridge_indexed SET number = :number;

-- name: bridge_sqlite.write_audit
-- Write an audit row.
INSERT INTO bridge_audit (
    chain, link, at, workspace_id, actor, role, request_id, operation, thread_id, outcome, rule, state_before, state_after,
    sha256
) VALUES (
    :chain, :link, :at, :workspace_id, :actor, :role, :request_id, :operation, :thread_id, :outcome, :rule, :state_before,
    :state_after, :sha256
);

-- name: bridge_sqlite.write_rates
-- Add posts to what an agent is known to have posted, see state.Rate.
INSERT INTO bridge_rates VALUES (:workspace_id, :agent_id, :rate_minute, :rate_posts, :rate_before)
ON CONFLICT (workspace_id, agent_id) DO UPDATE SET
    rate_minute = max(rate_minute, excluded.rate_minute),
    rate_posts  = excluded.rate_posts + CASE WHEN rate_minute >= excluded.rate_minute THEN rate_posts ELSE 0 END,
    rate_before = CASE WHEN rate_minute >= excluded.rate_minute THEN rate_before
                       WHEN rate_minute = excluded.rate_minute - 1 THEN rate_posts ELSE 0 END;

-- name: bridge_sqlite.write_findings
-- Write where a finding stands.
INSERT INTO bridge_findings VALUES (:thread_id, :finding_id, :state, :reports, :message_id, :reported_by)
ON CONFLICT (thread_id, finding_id) DO UPDATE SET
    state = excluded.state, reports = excluded.reports, message_id = excluded.message_id, reported_by = excluded.reported_by;

-- name: bridge_sqlite.write_sessions
-- Write a heartbeat.
INSERT INTO bridge_sessions VALUES (
    :workspace_id, :agent_id, :session_id, :runtime, :management_mode, :resumable, :status, :heartbeat_at
) ON CONFLICT (workspace_id, agent_id, session_id) DO UPDATE SET
    runtime = excluded.runtime, management_mode = excluded.management_mode, resumable = excluded.resumable,
    status = excluded.status, heartbeat_at = excluded.heartbeat_at;

-- name: bridge_sqlite.write_triggers
-- Queue a trigger.
INSERT INTO bridge_triggers VALUES (
    :trigger_id, :thread_id, :target, :reason, :prompt, :requested_by, :status, :created_at, :traceparent
);

-- name: bridge_sqlite.write_revocations
-- Revoke a token; the first time counts.
INSERT INTO bridge_revocations VALUES (:token_id, :expires_at, :revoked_at, :revoked_by) ON CONFLICT DO NOTHING;

-- name: bridge_sqlite.write_chains
-- Move the head of a workspace's chain.
INSERT INTO bridge_chains VALUES (:workspace_id, :links, :head)
ON CONFLICT (workspace_id) DO UPDATE SET links = excluded.links, head = excluded.head;

-- name: bridge_sqlite.bodies
-- Give the texts of a thread whose words are indexed, to take them out of the index.
SELECT number, body FROM bridge_messages WHERE thread_id = :thread_id AND number <= (SELECT number FROM bridge_indexed);

-- name: bridge_sqlite.remove_words
-- Take the words of a message out of the index.
INSERT INTO bridge_words (bridge_words, rowid, words) VALUES ('delete', :number, :words);

-- name: bridge_sqlite.remove_messages
-- Remove the messages of a thread.
DELETE FROM bridge_messages WHERE thread_id = :thread_id;

-- name: bridge_sqlite.remove_numbers
-- See to it that what gets a number anew, which the newest messages had, will be indexed.
UPDATE bridge_indexed SET number = min(number, (SELECT coalesce(max(number), 0) FROM bridge_messages));

-- name: bridge_sqlite.remove_participants
-- Remove who is in a thread.
DELETE FROM bridge_participants WHERE thread_id = :thread_id;

-- name: bridge_sqlite.remove_findings
-- Remove the findings of a thread.
DELETE FROM bridge_findings WHERE thread_id = :thread_id;

-- name: bridge_sqlite.remove_triggers
-- Remove the triggers of a thread.
DELETE FROM bridge_triggers WHERE thread_id = :thread_id;

-- name: bridge_sqlite.remove_audit
-- Remove the chain of a thread, which is in its archive.
DELETE FROM bridge_audit WHERE chain = :thread_id;

-- name: bridge_sqlite.remove_thread
-- Remove a thread.
DELETE FROM bridge_threads WHERE thread_id = :thread_id;

-- name: bridge_sqlite.search
-- Give messages that have all the words, newest first.
SELECT m.message_id, m.thread_id, m.seq, m.sender, m.kind, m.body, m.metadata, m.in_reply_to, m.addressee, m.created_at,
       m.traceparent
FROM (
    SELECT rowid AS number FROM bridge_words WHERE bridge_words MATCH :words
    UNION ALL
    SELECT number FROM bridge_messages
    WHERE number > (SELECT number FROM bridge_indexed) AND has_words(body, :wanted)
) w
JOIN bridge_messages m ON m.number = w.number
JOIN bridge_threads t ON t.thread_id = m.thread_id
WHERE t.workspace_id = :workspace_id
  AND (:thread_id IS NULL OR m.thread_id = :thread_id)
  AND (:participant IS NULL
       OR (m.addressee IS NULL OR :participant IN (m.addressee, m.sender))
          AND EXISTS (SELECT 1 FROM bridge_participants p WHERE p.thread_id = m.thread_id AND p.agent_id = :participant))
ORDER BY m.created_at DESC, m.message_id DESC LIMIT :limit;

-- name: bridge_sqlite.last_seqs
-- Give where threads end.
SELECT thread_id, last_seq FROM bridge_threads WHERE thread_id IN (SELECT value FROM json_each(:ids));

-- name: bridge_sqlite.read_text
-- Give the next messages of a thread as JSON in the words of the wire, without those meant for others than the reader.
SELECT '[' || group_concat(message, ',') || ']' AS messages, max(seq) AS last
FROM (
    SELECT seq, CASE WHEN :sees_all OR addressee IS NULL OR :reader IN (addressee, sender) THEN json_object(
        'message_id', message_id, 'thread_id', thread_id, 'seq', seq, 'sender', sender, 'kind', kind, 'body', body,
        'metadata', json(metadata), 'in_reply_to', in_reply_to, 'to', addressee, 'created_at', created_at,
        'traceparent', traceparent) END AS message
    FROM bridge_messages WHERE thread_id = :thread_id AND seq > :since_seq ORDER BY seq LIMIT :limit
);
