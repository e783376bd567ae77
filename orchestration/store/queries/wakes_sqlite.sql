-- What waking asks of SQLite in its own dialect. Lists go in as JSON arrays.

-- name: wakes_sqlite.now
-- Give the database's time: the host's, which all who write to this file share.
SELECT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') AS now;

-- name: wakes_sqlite.newest
-- Give how far the audit has come; entries are numbered in the order of commit.
SELECT coalesce(max(entry), 0) AS entry, 0 AS oldest, 0 AS next FROM bridge_audit;

-- name: wakes_sqlite.touched
-- Give the threads that have changed since an entry of the audit. The plus keeps SQLite from reading the index of chains whole.
SELECT DISTINCT +chain AS thread_id FROM bridge_audit WHERE entry > :since;

-- name: wakes_sqlite.unread
-- Give who has something to read in active threads, and since when.
SELECT * FROM (
    SELECT h.thread_id, p.agent_id, (
        SELECT m.created_at FROM bridge_messages m
        WHERE m.thread_id = h.thread_id AND m.seq > p.last_read_seq AND m.sender <> p.agent_id AND m.kind <> 'system'
          AND (m.addressee IS NULL OR m.addressee = p.agent_id) ORDER BY m.seq LIMIT 1) AS since
    FROM bridge_threads h JOIN bridge_participants p ON p.thread_id = h.thread_id AND p.last_read_seq < h.last_seq
    WHERE h.status = 'active') found
WHERE since IS NOT NULL;

-- name: wakes_sqlite.unread_of
-- Do as wakes_sqlite.unread, for some threads.
SELECT * FROM (
    SELECT h.thread_id, p.agent_id, (
        SELECT m.created_at FROM bridge_messages m
        WHERE m.thread_id = h.thread_id AND m.seq > p.last_read_seq AND m.sender <> p.agent_id AND m.kind <> 'system'
          AND (m.addressee IS NULL OR m.addressee = p.agent_id) ORDER BY m.seq LIMIT 1) AS since
    FROM bridge_threads h JOIN bridge_participants p ON p.thread_id = h.thread_id AND p.last_read_seq < h.last_seq
    WHERE h.status = 'active' AND h.thread_id IN (SELECT value FROM json_each(:ids))) found
WHERE since IS NOT NULL;

-- name: wakes_sqlite.places
-- Give where agents stand in threads, and what waits for them there, counted up to 1,000.
SELECT h.thread_id, k.value ->> 1 AS agent_id, h.workspace_id, h.status, h.status_reason, h.last_seq, p.last_read_seq,
       f.created_at AS unread_since, l.seq AS unread_last, l.created_at AS unread_last_at,
       CASE WHEN f.seq IS NULL THEN 0 ELSE (SELECT count(*) FROM (
           SELECT 1 FROM bridge_messages m
           WHERE m.thread_id = h.thread_id AND m.seq >= f.seq AND m.sender <> p.agent_id AND m.kind <> 'system'
             AND (m.addressee IS NULL OR m.addressee = p.agent_id) LIMIT 1000) n) END AS unread
FROM json_each(:keys) k
JOIN bridge_threads h ON h.thread_id = k.value ->> 0
LEFT JOIN bridge_participants p ON p.thread_id = h.thread_id AND p.agent_id = k.value ->> 1
LEFT JOIN bridge_messages f ON f.thread_id = h.thread_id AND f.seq = (
    SELECT m.seq FROM bridge_messages m
    WHERE m.thread_id = h.thread_id AND m.seq > p.last_read_seq AND m.sender <> p.agent_id AND m.kind <> 'system'
      AND (m.addressee IS NULL OR m.addressee = p.agent_id) ORDER BY m.seq LIMIT 1)
LEFT JOIN bridge_messages l ON l.thread_id = h.thread_id AND f.seq IS NOT NULL AND l.seq = (
    SELECT m.seq FROM bridge_messages m
    WHERE m.thread_id = h.thread_id AND m.seq >= f.seq AND m.sender <> p.agent_id AND m.kind <> 'system'
      AND (m.addressee IS NULL OR m.addressee = p.agent_id) ORDER BY m.seq DESC LIMIT 1);

-- name: wakes_sqlite.ended_of
-- Give the trigger of each thread and agent that ended last.
SELECT * FROM (
    SELECT w.*, row_number() OVER (PARTITION BY w.thread_id, w.agent_id
                                   ORDER BY coalesce(w.ended_at, w.created_at) DESC, w.trigger_id DESC) AS place
    FROM json_each(:keys) k
    JOIN bridge_wakes w ON w.thread_id = k.value ->> 0 AND w.agent_id = k.value ->> 1
    WHERE w.trigger_status <> 'queued' AND w.leader IS NULL) found
WHERE place = 1;

-- name: wakes_sqlite.followers_of
-- Give what was taken into triggers and was not cancelled, in line.
SELECT * FROM bridge_wakes
WHERE trigger_id IN (SELECT s.trigger_id FROM bridge_wake_states s WHERE s.leader IN (SELECT value FROM json_each(:ids)))
  AND trigger_status <> 'cancelled'
ORDER BY queued_at, trigger_id;

-- name: wakes_sqlite.attempts_of
-- Give the attempts of triggers.
SELECT * FROM bridge_wake_attempts WHERE trigger_id IN (SELECT value FROM json_each(:ids)) ORDER BY trigger_id, number;

-- name: wakes_sqlite.attempted
-- Give when agents were attempted to be woken for threads last, deferrals left out.
SELECT a.thread_id, a.agent_id, a.began_at FROM json_each(:keys) k
JOIN bridge_wake_attempts a ON a.thread_id = k.value ->> 0 AND a.agent_id = k.value ->> 1
WHERE coalesce(a.outcome, '') <> 'deferred' AND a.began_at >= coalesce((
    SELECT b.began_at FROM bridge_wake_attempts b
    WHERE b.thread_id = k.value ->> 0 AND b.agent_id = k.value ->> 1 AND coalesce(b.outcome, '') <> 'deferred'
    ORDER BY b.began_at DESC LIMIT 1 OFFSET :most - 1), '')
ORDER BY a.began_at DESC;

-- name: wakes_sqlite.failed
-- Give when turns of agents, in whatever threads, failed last.
SELECT a.workspace_id, a.agent_id, a.ended_at FROM json_each(:keys) k
JOIN bridge_wake_attempts a ON a.workspace_id = k.value ->> 0 AND a.agent_id = k.value ->> 1
WHERE a.outcome = 'failed' AND a.way <> 'live' AND a.ended_at >= coalesce((
    SELECT b.ended_at FROM bridge_wake_attempts b
    WHERE b.workspace_id = k.value ->> 0 AND b.agent_id = k.value ->> 1 AND b.outcome = 'failed' AND b.way <> 'live'
    ORDER BY b.ended_at DESC LIMIT 1 OFFSET :most - 1), '')
ORDER BY a.ended_at DESC;

-- name: wakes_sqlite.sessions
-- Give the sessions of agents, the newest heartbeat first.
SELECT DISTINCT s.* FROM json_each(:keys) k
JOIN bridge_sessions s ON s.workspace_id = k.value ->> 0 AND s.agent_id = k.value ->> 1
ORDER BY s.heartbeat_at DESC, s.session_id;

-- name: wakes_sqlite.pauses
-- Give which agents are left alone.
SELECT DISTINCT s.workspace_id, s.agent_id FROM json_each(:keys) k
JOIN bridge_pauses s ON s.workspace_id = k.value ->> 0 AND s.agent_id = k.value ->> 1;
