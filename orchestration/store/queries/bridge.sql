-- What the bridge reads, in words that SQLite and PostgreSQL share.

-- name: bridge.thread
-- Give one thread.
SELECT * FROM bridge_threads WHERE thread_id = :thread_id;

-- name: bridge.place
-- Give one thread, and the reader's place in it if it has one.
SELECT t.*, p.agent_id, p.role, p.joined_at, p.last_read_seq
FROM bridge_threads t LEFT JOIN bridge_participants p ON p.thread_id = t.thread_id AND p.agent_id = :reader
WHERE t.thread_id = :thread_id;

-- name: bridge.messages
-- Give the next messages of a thread.
SELECT message_id, thread_id, seq, sender, kind, body, metadata, in_reply_to, addressee, created_at, traceparent
FROM bridge_messages WHERE thread_id = :thread_id AND seq > :since_seq ORDER BY seq LIMIT :limit;

-- name: bridge.participants
-- Give who is in a thread, with the newest session of each in the thread's workspace. Unread is what others have said to
-- them after their cursors: what is known of it, [cursor, up to which number, how many] by agent, and what came since, counted
-- up to 1,000.
SELECT p.agent_id, p.role, p.joined_at, p.last_read_seq, t.last_seq, s.heartbeat_at, s.status AS session_status,
       CASE WHEN p.last_read_seq >= t.last_seq THEN 0 ELSE coalesce(CAST(k.value ->> 2 AS bigint), 0) + (SELECT count(*) FROM (
    SELECT 1 FROM bridge_messages m
    WHERE m.thread_id = t.thread_id AND m.seq > coalesce(CAST(k.value ->> 1 AS bigint), p.last_read_seq)
        AND m.sender <> p.agent_id AND (m.addressee IS NULL OR m.addressee = p.agent_id) LIMIT 1000) n) END AS unread
FROM bridge_threads t
JOIN bridge_participants p ON p.thread_id = t.thread_id
LEFT JOIN json_each(:known) k ON k.key = p.agent_id
    AND CAST(k.value ->> 0 AS bigint) = p.last_read_seq AND CAST(k.value ->> 1 AS bigint) <= t.last_seq
LEFT JOIN bridge_sessions s ON s.workspace_id = t.workspace_id AND s.agent_id = p.agent_id AND s.session_id = (
    SELECT n.session_id FROM bridge_sessions n WHERE n.workspace_id = t.workspace_id AND n.agent_id = p.agent_id
    ORDER BY n.heartbeat_at DESC, n.session_id LIMIT 1)
WHERE t.thread_id = :thread_id ORDER BY p.agent_id;

-- name: bridge.threads
-- Give a page of threads, newest first. Unread is what others have said to the reader after its cursor, as in
-- bridge.participants; what is known of it by thread.
SELECT t.thread_id, t.title, t.type, t.status, t.last_seq, t.updated_at, r.last_read_seq,
       CASE WHEN r.last_read_seq IS NULL OR r.last_read_seq >= t.last_seq THEN 0
            ELSE coalesce(CAST(k.value ->> 2 AS bigint), 0) + (SELECT count(*) FROM (
    SELECT 1 FROM bridge_messages m
    WHERE m.thread_id = t.thread_id AND m.seq > coalesce(CAST(k.value ->> 1 AS bigint), r.last_read_seq)
        AND m.sender <> r.agent_id AND (m.addressee IS NULL OR m.addressee = r.agent_id) LIMIT 1000) n) END AS unread
FROM bridge_threads t
LEFT JOIN bridge_participants r ON r.thread_id = t.thread_id AND r.agent_id = :reader
LEFT JOIN json_each(:known) k ON k.key = t.thread_id
    AND CAST(k.value ->> 0 AS bigint) = r.last_read_seq AND CAST(k.value ->> 1 AS bigint) <= t.last_seq
WHERE (:workspace_id IS NULL OR t.workspace_id = :workspace_id)
  AND (:status IS NULL OR t.status = :status)
  AND (:participant IS NULL
       OR EXISTS (SELECT 1 FROM bridge_participants p WHERE p.thread_id = t.thread_id AND p.agent_id = :participant))
  AND (:after IS NULL OR t.thread_id < :after)
ORDER BY t.thread_id DESC LIMIT :limit;

-- name: bridge.findings
-- Give every finding of a thread, in the order of their first reports.
SELECT f.*, coalesce(m.body, '') AS body, m.addressee
FROM bridge_findings f LEFT JOIN bridge_messages m ON m.message_id = f.message_id
WHERE f.thread_id = :thread_id ORDER BY m.seq, f.finding_id;

-- name: bridge.audit_of_thread
-- Give the next audit rows of a thread's chain.
SELECT * FROM bridge_audit
WHERE chain = :thread_id AND entry > :after AND (:workspace_id IS NULL OR workspace_id = :workspace_id)
ORDER BY link LIMIT :limit;

-- name: bridge.audit
-- Give the next audit rows of a workspace, or of all.
SELECT * FROM bridge_audit
WHERE entry > :after AND (:workspace_id IS NULL OR workspace_id = :workspace_id) ORDER BY entry LIMIT :limit;

-- name: bridge.latest_audit_of_thread
-- Give the newest audit rows of a thread's chain, newest first.
SELECT * FROM bridge_audit
WHERE chain = :thread_id AND (:workspace_id IS NULL OR workspace_id = :workspace_id) ORDER BY link DESC LIMIT :limit;

-- name: bridge.latest_audit
-- Give the newest audit rows of a workspace, or of all, newest first.
SELECT * FROM bridge_audit
WHERE (:workspace_id IS NULL OR workspace_id = :workspace_id) ORDER BY entry DESC LIMIT :limit;

-- name: bridge.audit_link
-- Give the hash of one audit row.
SELECT sha256 FROM bridge_audit WHERE chain = :chain AND link = :link;

-- name: bridge.audit_links
-- Give the audit rows that follow on a link, chain by chain.
SELECT * FROM bridge_audit WHERE (chain, link) > (:chain, :link) ORDER BY chain, link LIMIT :limit;

-- name: bridge.audit_heads
-- Give where every chain of the audit must end.
SELECT thread_id AS chain, links, head FROM bridge_threads
UNION ALL
SELECT 'workspace:' || workspace_id, links, head FROM bridge_chains;

-- name: bridge.sessions
-- Give sessions, the newest heartbeat first.
SELECT * FROM bridge_sessions
WHERE workspace_id = :workspace_id AND (:agent_id IS NULL OR agent_id = :agent_id)
ORDER BY heartbeat_at DESC, agent_id, session_id;

-- name: bridge.triggers
-- Give the newest triggers of a thread.
SELECT * FROM bridge_triggers WHERE thread_id = :thread_id ORDER BY created_at DESC, trigger_id DESC LIMIT :limit;

-- name: bridge.revoked
-- Give the revoked tokens that would still count otherwise.
SELECT token_id FROM bridge_revocations WHERE expires_at > :now;
