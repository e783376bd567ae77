-- What must hold between the bridge's rows; each query gives what does not. Alike in SQLite and PostgreSQL.

-- name: soundness.newest
-- Tell how far the audit has come: nothing is changed without a row in it.
SELECT coalesce(max(entry), 0) AS entry FROM bridge_audit;

-- name: soundness.gaps
-- Give threads whose messages are not numbered 1, 2, … up to the last.
SELECT t.thread_id AS what FROM bridge_threads t
LEFT JOIN (
    SELECT thread_id, count(*) AS messages, max(seq) AS last, min(seq) AS first FROM bridge_messages GROUP BY thread_id
) m ON m.thread_id = t.thread_id
WHERE coalesce(m.messages, 0) <> t.last_seq OR coalesce(m.last, 0) <> t.last_seq OR coalesce(m.first, 1) <> 1;

-- name: soundness.orphans
-- Give threads that rows speak of and that are not there.
SELECT DISTINCT thread_id AS what FROM (
    SELECT thread_id FROM bridge_messages UNION SELECT thread_id FROM bridge_participants
    UNION SELECT thread_id FROM bridge_findings UNION SELECT thread_id FROM bridge_triggers
    UNION SELECT thread_id FROM bridge_wake_states UNION SELECT thread_id FROM bridge_wake_attempts
) named WHERE NOT EXISTS (SELECT 1 FROM bridge_threads t WHERE t.thread_id = named.thread_id);

-- name: soundness.cursors
-- Give threads with a cursor before the first or past the last message.
SELECT DISTINCT t.thread_id AS what FROM bridge_participants p
JOIN bridge_threads t ON t.thread_id = p.thread_id WHERE p.last_read_seq > t.last_seq OR p.last_read_seq < 0;

-- name: soundness.wakes
-- Give threads with a trigger that ended in one table and not in the other, or with a claim on one that has ended.
SELECT DISTINCT s.thread_id AS what FROM bridge_wake_states s
LEFT JOIN bridge_triggers t ON t.trigger_id = s.trigger_id
WHERE t.trigger_id IS NULL OR (t.status = 'queued') <> (s.ended_at IS NULL) OR (s.ended_at IS NOT NULL AND s.holder <> '');
