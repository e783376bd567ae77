-- What waking asks of PostgreSQL in its own dialect. Lists go in as JSON arrays.

-- name: wakes_postgres.begin
-- Begin to write; nobody is waited for long, and whoever dies meanwhile holds nobody up for long.
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT set_config('lock_timeout', '3s', true), set_config('idle_in_transaction_session_timeout', '10s', true),
       set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                                        WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true);

-- name: wakes_postgres.begin_look
-- Begin to look: everything that follows sees one moment.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- name: wakes_postgres.commit
-- Keep what was written.
COMMIT;

-- name: wakes_postgres.lock
-- Lock a thread, and give what a plan may know of it.
SELECT bridge_facts(:wanted) AS facts;

-- name: wakes_postgres.now
-- Give the database's time.
SELECT clock_timestamp() AS now;

-- name: wakes_postgres.newest
-- Give how far the audit has come, and which transactions may still have a number before that: numbers are given before the
-- commit.
SELECT coalesce(max(entry), 0) AS entry, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next
FROM bridge_audit;

-- name: wakes_postgres.touched
-- Give the threads that have changed since an entry of the audit.
SELECT DISTINCT chain AS thread_id FROM bridge_audit WHERE entry > :since;

-- name: wakes_postgres.unread
-- Give who has something to read in active threads, and since when.
SELECT * FROM (
    SELECT h.thread_id, p.agent_id, (
        SELECT m.created_at FROM bridge_messages m
        WHERE m.thread_id = h.thread_id AND m.seq > p.last_read_seq AND m.sender <> p.agent_id AND m.kind <> 'system'
          AND (m.addressee IS NULL OR m.addressee = p.agent_id) ORDER BY m.seq LIMIT 1) AS since
    FROM bridge_threads h JOIN bridge_participants p ON p.thread_id = h.thread_id AND p.last_read_seq < h.last_seq
    WHERE h.status = 'active') found
WHERE since IS NOT NULL;

-- name: wakes_postgres.unread_of
-- Do as wakes_postgres.unread, for some threads.
SELECT * FROM (
    SELECT h.thread_id, p.agent_id, (
        SELECT m.created_at FROM bridge_messages m
        WHERE m.thread_id = h.thread_id AND m.seq > p.last_read_seq AND m.sender <> p.agent_id AND m.kind <> 'system'
          AND (m.addressee IS NULL OR m.addressee = p.agent_id) ORDER BY m.seq LIMIT 1) AS since
    FROM bridge_threads h JOIN bridge_participants p ON p.thread_id = h.thread_id AND p.last_read_seq < h.last_seq
    WHERE h.status = 'active' AND h.thread_id IN (SELECT json_array_elements_text(:ids))) found
WHERE since IS NOT NULL;

-- name: wakes_postgres.places
-- Give where agents stand in threads, and what waits for them there, counted up to 1,000.
SELECT h.thread_id, k ->> 1 AS agent_id, h.workspace_id, h.status, h.status_reason, h.last_seq, p.last_read_seq,
       f.created_at AS unread_since, l.seq AS unread_last, l.created_at AS unread_last_at,
       CASE WHEN f.seq IS NULL THEN 0 ELSE (SELECT count(*) FROM (
           SELECT 1 FROM bridge_messages m
           WHERE m.thread_id = h.thread_id AND m.seq >= f.seq AND m.sender <> p.agent_id AND m.kind <> 'system'
             AND (m.addressee IS NULL OR m.addressee = p.agent_id) LIMIT 1000) n) END AS unread
FROM json_array_elements(:keys) k
JOIN bridge_threads h ON h.thread_id = k ->> 0
LEFT JOIN bridge_participants p ON p.thread_id = h.thread_id AND p.agent_id = k ->> 1
LEFT JOIN bridge_messages f ON f.thread_id = h.thread_id AND f.seq = (
    SELECT m.seq FROM bridge_messages m
    WHERE m.thread_id = h.thread_id AND m.seq > p.last_read_seq AND m.sender <> p.agent_id AND m.kind <> 'system'
      AND (m.addressee IS NULL OR m.addressee = p.agent_id) ORDER BY m.seq LIMIT 1)
LEFT JOIN bridge_messages l ON l.thread_id = h.thread_id AND f.seq IS NOT NULL AND l.seq = (
    SELECT m.seq FROM bridge_messages m
    WHERE m.thread_id = h.thread_id AND m.seq >= f.seq AND m.sender <> p.agent_id AND m.kind <> 'system'
      AND (m.addressee IS NULL OR m.addressee = p.agent_id) ORDER BY m.seq DESC LIMIT 1);

-- name: wakes_postgres.ended_of
-- Give the trigger of each thread and agent that ended last.
SELECT last.* FROM json_array_elements(:keys) k
CROSS JOIN LATERAL (
    SELECT w.* FROM bridge_wakes w
    WHERE w.thread_id = k ->> 0 AND w.agent_id = k ->> 1 AND w.trigger_status <> 'queued' AND w.leader IS NULL
    ORDER BY coalesce(w.ended_at, w.created_at) DESC, w.trigger_id DESC LIMIT 1) last;

-- name: wakes_postgres.followers_of
-- Give what was taken into triggers and was not cancelled, in line.
SELECT * FROM bridge_wakes
WHERE trigger_id IN (SELECT s.trigger_id FROM bridge_wake_states s WHERE s.leader IN (SELECT json_array_elements_text(:ids)))
  AND trigger_status <> 'cancelled'
ORDER BY queued_at, trigger_id;

-- name: wakes_postgres.attempts_of
-- Give the attempts of triggers.
SELECT * FROM bridge_wake_attempts WHERE trigger_id IN (SELECT json_array_elements_text(:ids)) ORDER BY trigger_id, number;

-- name: wakes_postgres.attempted
-- Give when agents were attempted to be woken for threads last, deferrals left out.
SELECT k ->> 0 AS thread_id, k ->> 1 AS agent_id, last.began_at
FROM json_array_elements(:keys) k
CROSS JOIN LATERAL (
    SELECT a.began_at FROM bridge_wake_attempts a
    WHERE a.thread_id = k ->> 0 AND a.agent_id = k ->> 1 AND coalesce(a.outcome, '') <> 'deferred'
    ORDER BY a.began_at DESC LIMIT :most) last
ORDER BY last.began_at DESC;

-- name: wakes_postgres.failed
-- Give when turns of agents, in whatever threads, failed last.
SELECT k ->> 0 AS workspace_id, k ->> 1 AS agent_id, last.ended_at
FROM json_array_elements(:keys) k
CROSS JOIN LATERAL (
    SELECT a.ended_at FROM bridge_wake_attempts a
    WHERE a.workspace_id = k ->> 0 AND a.agent_id = k ->> 1 AND a.outcome = 'failed' AND a.way <> 'live'
    ORDER BY a.ended_at DESC LIMIT :most) last
ORDER BY last.ended_at DESC;

-- name: wakes_postgres.sessions
-- Give the sessions of agents, the newest heartbeat first.
SELECT DISTINCT s.* FROM json_array_elements(:keys) k
JOIN bridge_sessions s ON s.workspace_id = k ->> 0 AND s.agent_id = k ->> 1
ORDER BY s.heartbeat_at DESC, s.session_id;

-- name: wakes_postgres.pauses
-- Give which agents are left alone.
SELECT DISTINCT s.workspace_id, s.agent_id FROM json_array_elements(:keys) k
JOIN bridge_pauses s ON s.workspace_id = k ->> 0 AND s.agent_id = k ->> 1;
