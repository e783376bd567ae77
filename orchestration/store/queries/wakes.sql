-- Triggers with how far they have come, in words that SQLite and PostgreSQL share. Each instant of a lease (`now`, `until`)
-- is the database's own, asked for in the same transaction.

-- name: wakes.of
-- Give one trigger.
SELECT * FROM bridge_wakes WHERE trigger_id = :trigger_id;

-- name: wakes.listed
-- Give the newest triggers of a thread, an agent, a status, or of all.
SELECT * FROM bridge_wakes
WHERE (:thread_id IS NULL OR thread_id = :thread_id) AND (:agent_id IS NULL OR agent_id = :agent_id)
  AND (:status IS NULL OR status = :status)
ORDER BY created_at DESC, trigger_id DESC LIMIT :limit;

-- name: wakes.open
-- Give every open trigger that was not taken into another one, the first in line first.
SELECT * FROM bridge_wakes
WHERE trigger_id IN (SELECT t.trigger_id FROM bridge_triggers t WHERE t.status = 'queued') AND leader IS NULL
ORDER BY CASE WHEN holder <> '' THEN 0 ELSE 1 END, queued_at, trigger_id;

-- name: wakes.open_of_case
-- Do as wakes.open, for one agent in one thread.
SELECT * FROM bridge_wakes
WHERE trigger_status = 'queued' AND leader IS NULL AND thread_id = :thread_id AND agent_id = :agent_id
ORDER BY CASE WHEN holder <> '' THEN 0 ELSE 1 END, queued_at, trigger_id;

-- name: wakes.claim
-- Claim a trigger that is queued or whose lease has ended, and that is the first in line of its thread and agent.
INSERT INTO bridge_wake_states (
    trigger_id, thread_id, agent_id, forced, due_at, holder, fence, lease_until, deferrals, detail)
SELECT w.trigger_id, w.thread_id, w.agent_id, 0, w.due_at, :holder, 1, :until, 0, '' FROM bridge_wakes w
WHERE w.trigger_id = :trigger_id AND w.trigger_status = 'queued' AND (w.holder <> '' OR NOT EXISTS (
    SELECT 1 FROM bridge_wakes o
    WHERE o.thread_id = w.thread_id AND o.agent_id = w.agent_id AND o.trigger_id <> w.trigger_id
      AND o.trigger_status = 'queued' AND o.leader IS NULL
      AND (o.holder <> '' OR (o.queued_at, o.trigger_id) < (w.queued_at, w.trigger_id))))
ON CONFLICT (trigger_id) DO UPDATE SET
    holder = excluded.holder, fence = bridge_wake_states.fence + 1, lease_until = excluded.lease_until
WHERE bridge_wake_states.leader IS NULL AND bridge_wake_states.ended_at IS NULL
  AND (bridge_wake_states.holder = '' OR bridge_wake_states.lease_until <= :now)
RETURNING fence;

-- name: wakes.follow
-- Take a queued trigger that nobody has into another one.
INSERT INTO bridge_wake_states (
    trigger_id, thread_id, agent_id, leader, forced, due_at, holder, fence, deferrals, detail)
SELECT t.trigger_id, t.thread_id, t.target, :leader, 0, t.created_at, '', 0, 0, :detail FROM bridge_triggers t
WHERE t.trigger_id = :trigger_id AND t.status = 'queued'
ON CONFLICT (trigger_id) DO UPDATE SET leader = excluded.leader, detail = excluded.detail
WHERE bridge_wake_states.leader IS NULL AND bridge_wake_states.ended_at IS NULL AND bridge_wake_states.holder = ''
RETURNING trigger_id;

-- name: wakes.followers
-- Give what was taken into a trigger and was not cancelled, in line.
SELECT trigger_id, trigger_status FROM bridge_wakes
WHERE trigger_id IN (SELECT s.trigger_id FROM bridge_wake_states s WHERE s.leader = :trigger_id) AND trigger_status <> 'cancelled' ORDER BY queued_at, trigger_id;

-- name: wakes.hold
-- Find that a claim holds, and keep it from being lost until the end of the transaction.
UPDATE bridge_wake_states SET fence = fence
WHERE trigger_id = :trigger_id AND holder = :holder AND fence = :fence AND lease_until > :now
RETURNING trigger_id;

-- name: wakes.renew
-- Prolong a claim that holds.
UPDATE bridge_wake_states SET lease_until = :until
WHERE trigger_id = :trigger_id AND holder = :holder AND fence = :fence AND lease_until > :now
RETURNING trigger_id;

-- name: wakes.release
-- Give a claim that holds back.
UPDATE bridge_wake_states SET
    holder = '', lease_until = NULL, due_at = :due_at, code = :code, deferrals = deferrals + :deferred,
    deferred_at = CASE WHEN deferred_at IS NULL THEN :deferred_at ELSE deferred_at END
WHERE trigger_id = :trigger_id AND holder = :holder AND fence = :fence AND lease_until > :now
RETURNING trigger_id;

-- name: wakes.attempt
-- Write an attempt; how one ended is written once.
INSERT INTO bridge_wake_attempts (
    trigger_id, number, workspace_id, thread_id, agent_id, way, session_id, holder, fence, cycle, began_at, read_seq,
    ended_at, outcome, code, detail)
SELECT w.trigger_id, :number, w.workspace_id, w.thread_id, w.agent_id, :way, :session_id, :holder, :fence, :cycle,
       :began_at, :read_seq, :ended_at, :outcome, :code, :detail
FROM bridge_wakes w WHERE w.trigger_id = :trigger_id
ON CONFLICT (trigger_id, number) DO UPDATE SET
    session_id = excluded.session_id, cycle = excluded.cycle, ended_at = excluded.ended_at, outcome = excluded.outcome,
    code = excluded.code, detail = excluded.detail
WHERE bridge_wake_attempts.ended_at IS NULL
RETURNING number;

-- name: wakes.attempts
-- Give the attempts of a trigger.
SELECT * FROM bridge_wake_attempts WHERE trigger_id = :trigger_id ORDER BY number;

-- name: wakes.end
-- Say how a trigger ended, and with it those taken into it; whoever had claimed it has no claim any more.
INSERT INTO bridge_wake_states (
    trigger_id, thread_id, agent_id, forced, due_at, holder, fence, deferrals, outcome, code, detail, ended_at)
SELECT w.trigger_id, w.thread_id, w.agent_id, 0, w.due_at, '', 1, 0, :outcome, :code, :detail, :ended_at
FROM bridge_wakes w
WHERE w.trigger_id IN (
        SELECT :trigger_id UNION ALL SELECT s.trigger_id FROM bridge_wake_states s WHERE s.leader = :trigger_id)
    AND w.trigger_status = 'queued'
ON CONFLICT (trigger_id) DO UPDATE SET
    holder = '', lease_until = NULL, fence = bridge_wake_states.fence + 1, outcome = excluded.outcome,
    code = excluded.code, ended_at = excluded.ended_at,
    detail = CASE WHEN bridge_wake_states.leader IS NULL THEN excluded.detail ELSE bridge_wake_states.detail END;

-- name: wakes.end_trigger
-- Say of a trigger, and of those taken into it, that it is open no more.
UPDATE bridge_triggers SET status = :status
WHERE status = 'queued' AND (trigger_id = :trigger_id
    OR trigger_id IN (SELECT s.trigger_id FROM bridge_wake_states s WHERE s.leader = :trigger_id));

-- name: wakes.free
-- Let go of what was taken into a trigger.
UPDATE bridge_wake_states SET leader = NULL, detail = '' WHERE leader = :trigger_id AND ended_at IS NULL;

-- name: wakes.renew_state
-- Put a trigger into the queue anew; attempts from before count no more. What had ended with it goes with it again.
INSERT INTO bridge_wake_states (
    trigger_id, thread_id, agent_id, forced, due_at, holder, fence, deferrals, renewed_at, detail)
SELECT w.trigger_id, w.thread_id, w.agent_id, :forced, :at, '', 1, 0, :at, '' FROM bridge_wakes w
WHERE w.trigger_id = :trigger_id
ON CONFLICT (trigger_id) DO UPDATE SET
    leader = NULL, forced = excluded.forced, due_at = excluded.due_at, holder = '', lease_until = NULL,
    fence = bridge_wake_states.fence + 1, deferred_at = NULL, deferrals = 0, renewed_at = excluded.renewed_at,
    outcome = NULL, code = NULL, detail = '', ended_at = NULL;

-- name: wakes.renew_followers
-- Put those that were taken into a trigger, and not cancelled, into the queue with it.
UPDATE bridge_wake_states SET outcome = NULL, code = NULL, ended_at = NULL
WHERE leader = :trigger_id AND EXISTS (
    SELECT 1 FROM bridge_triggers t WHERE t.trigger_id = bridge_wake_states.trigger_id AND t.status <> 'cancelled');

-- name: wakes.renew_trigger
-- Say of a trigger that it is open again, and of those that it has taken in.
UPDATE bridge_triggers SET status = 'queued'
WHERE trigger_id = :trigger_id OR (status <> 'cancelled'
    AND trigger_id IN (SELECT s.trigger_id FROM bridge_wake_states s WHERE s.leader = :trigger_id));

-- name: wakes.hurry
-- Have a queued trigger looked at now.
INSERT INTO bridge_wake_states (trigger_id, thread_id, agent_id, forced, due_at, holder, fence, deferrals, detail)
SELECT w.trigger_id, w.thread_id, w.agent_id, :forced, :at, '', 0, 0, '' FROM bridge_wakes w
WHERE w.trigger_id = :trigger_id
ON CONFLICT (trigger_id) DO UPDATE SET
    due_at = excluded.due_at,
    forced = CASE WHEN excluded.forced = 1 THEN 1 ELSE bridge_wake_states.forced END;

-- name: wakes.hold_session
-- Become the one writer of a session, or stay it.
INSERT INTO bridge_session_writers (session_id, holder, fence, lease_until) VALUES (:session_id, :holder, 1, :until)
ON CONFLICT (session_id) DO UPDATE SET
    fence = bridge_session_writers.fence
          + CASE WHEN bridge_session_writers.holder = excluded.holder AND bridge_session_writers.lease_until > :now
                 THEN 0 ELSE 1 END,
    holder = excluded.holder, lease_until = excluded.lease_until
WHERE bridge_session_writers.holder IN ('', excluded.holder) OR bridge_session_writers.lease_until <= :now
RETURNING fence;

-- name: wakes.leave_session
-- Let go of a session.
UPDATE bridge_session_writers SET holder = '', lease_until = :now WHERE session_id = :session_id AND holder = :holder;

-- name: wakes.forget_sessions
-- Forget sessions that nobody has written to for long.
DELETE FROM bridge_session_writers WHERE lease_until < :before;

-- name: wakes.forget_silent
-- Forget sessions that nobody has heard of for so long that nobody would go on with them.
DELETE FROM bridge_sessions WHERE heartbeat_at < :before;

-- name: wakes.pause
-- Leave an agent alone from now on.
INSERT INTO bridge_pauses (workspace_id, agent_id, paused_at, paused_by) VALUES (:workspace_id, :agent_id, :at, :actor)
ON CONFLICT (workspace_id, agent_id) DO NOTHING RETURNING agent_id;

-- name: wakes.paused
-- Give every agent that is left alone.
SELECT workspace_id, agent_id FROM bridge_pauses ORDER BY workspace_id, agent_id;

-- name: wakes.resume
-- Leave an agent alone no longer.
DELETE FROM bridge_pauses WHERE workspace_id = :workspace_id AND agent_id = :agent_id RETURNING agent_id;
