-- name: wake_sessions.know
-- Know the session of a turn that has ended: nobody writes to it any more, and another turn can. One that lives in a terminal,
-- or was heard of since, has spoken for itself.
INSERT INTO bridge_sessions (
    workspace_id, agent_id, session_id, runtime, management_mode, resumable, status, heartbeat_at)
SELECT w.workspace_id, w.agent_id, :session_id, 'turn', 'unmanaged', 1, 'offline', :ended_at
FROM bridge_wakes w WHERE w.trigger_id = :trigger_id
ON CONFLICT (workspace_id, agent_id, session_id) DO UPDATE SET
    resumable = 1, status = excluded.status, heartbeat_at = excluded.heartbeat_at
WHERE bridge_sessions.management_mode = 'unmanaged' AND bridge_sessions.heartbeat_at <= excluded.heartbeat_at;
