-- What is looked at of all threads together: for metrics, health and the page. Alike in SQLite and PostgreSQL.

-- name: census.threads
-- Give how many threads stand where, and since when the one that has stood there longest.
SELECT status, count(*) AS threads, min(updated_at) AS since FROM bridge_threads GROUP BY status;

-- name: census.unread
-- Give how many messages wait for their readers, up to 1,000 for each, by where their threads stand.
SELECT t.status, sum((SELECT count(*) FROM (
    SELECT 1 FROM bridge_messages m
    WHERE m.thread_id = t.thread_id AND m.seq > p.last_read_seq AND m.sender <> p.agent_id
        AND (m.addressee IS NULL OR m.addressee = p.agent_id) LIMIT 1000) n)) AS messages
FROM bridge_threads t JOIN bridge_participants p ON p.thread_id = t.thread_id
WHERE t.last_seq > p.last_read_seq GROUP BY t.status;

-- name: census.waiting
-- Give who has not read what somebody else has said to them in an open thread, the longest wait first.
SELECT t.thread_id, t.status, p.agent_id, m.sender, m.created_at AS since, m.traceparent
FROM bridge_threads t
JOIN bridge_participants p ON p.thread_id = t.thread_id AND p.last_read_seq < t.last_seq
JOIN bridge_messages m ON m.thread_id = t.thread_id AND m.seq = (
    SELECT n.seq FROM bridge_messages n
    WHERE n.thread_id = t.thread_id AND n.seq > p.last_read_seq AND n.sender <> p.agent_id
        AND (n.addressee IS NULL OR n.addressee = p.agent_id)
    ORDER BY n.seq LIMIT 1)
WHERE t.status IN ('active', 'blocked') ORDER BY m.created_at, t.thread_id, p.agent_id LIMIT :limit;

-- name: census.shown
-- Give the threads that a person would look at first: blocked ones, the longest first, then the others by their last change.
SELECT * FROM (
    SELECT b.* FROM (SELECT * FROM bridge_threads WHERE status = 'blocked' ORDER BY updated_at, thread_id LIMIT :limit) b
    UNION ALL
    SELECT a.* FROM (SELECT * FROM bridge_threads WHERE status = 'active' ORDER BY updated_at DESC, thread_id LIMIT :limit) a
    UNION ALL
    SELECT e.* FROM (SELECT * FROM bridge_threads WHERE status IN ('resolved', 'closed')
                     ORDER BY updated_at DESC, thread_id LIMIT :limit) e
) found LIMIT :limit;

-- name: census.lengths
-- Give how many messages every thread has.
SELECT thread_id, last_seq FROM bridge_threads;
