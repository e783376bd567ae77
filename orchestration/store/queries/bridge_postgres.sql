-- What the bridge asks of PostgreSQL in its own dialect; facts and writing are functions of migrations/postgres.

-- name: bridge_postgres.begin
-- Begin, lock the threads of a batch, and give what its plans may know.
BEGIN ISOLATION LEVEL READ COMMITTED; SELECT bridge_facts(:wanted);

-- name: bridge_postgres.heads
-- Lock the chains of workspaces, and give their heads.
SELECT bridge_heads(:workspaces);

-- name: bridge_postgres.write
-- Write what a batch has changed: a transaction by itself.
SELECT bridge_write(:threads, :posts, :audit, :rates, :rest);

-- name: bridge_postgres.write_post
-- Write one post and what comes with it: a transaction by itself.
SELECT bridge_write_post(:post);

-- name: bridge_postgres.commit
-- Write what a batch has changed, and commit.
SELECT bridge_write(:threads, :posts, :audit, :rates, :rest); COMMIT;

-- name: bridge_postgres.rollback
-- End a transaction, and nothing of it stays.
ROLLBACK;

-- name: bridge_postgres.search
-- Give messages that have all the words, newest first.
SELECT m.message_id, m.thread_id, m.seq, m.sender, m.kind, m.body, m.metadata, m.in_reply_to, m.addressee, m.created_at,
       m.traceparent
FROM bridge_messages m
JOIN bridge_threads t ON t.thread_id = m.thread_id
WHERE m.words @@ CAST(:words AS tsquery) AND t.workspace_id = :workspace_id
  AND (:thread_id IS NULL OR m.thread_id = :thread_id)
  AND (:participant IS NULL
       OR (m.addressee IS NULL OR :participant IN (m.addressee, m.sender))
          AND EXISTS (SELECT 1 FROM bridge_participants p WHERE p.thread_id = m.thread_id AND p.agent_id = :participant))
ORDER BY m.created_at DESC, m.message_id DESC LIMIT :limit;

-- name: bridge_postgres.settled_audit
-- Wait for those who write audit rows, and keep others from it until this page is read: numbers are given before the commit.
BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '3s'; LOCK TABLE bridge_audit IN SHARE MODE;

-- name: bridge_postgres.last_seqs
-- Give where threads end.
SELECT thread_id, last_seq FROM bridge_threads WHERE thread_id IN (SELECT json_array_elements_text(:ids));

-- name: bridge_postgres.notify
-- Tell the other processes which threads have news: a hint, sent after the commit, for its lock would queue up commits.
SELECT pg_notify('kloros_bridge', :news);

-- name: bridge_postgres.session
-- Give which session answers: behind a pooler another one than the connection was told of.
SELECT pg_backend_pid() AS pid;

-- name: bridge_postgres.listen
-- Hear of news from other processes.
LISTEN kloros_bridge;

-- name: bridge_postgres.one_snapshot
-- Let everything that follows see one moment.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- name: bridge_postgres.read_text
-- Give threads, their readers' places in them, and their next messages as JSON, for reads that share a query.
SELECT place, messages, last FROM bridge_reads(:asked);
