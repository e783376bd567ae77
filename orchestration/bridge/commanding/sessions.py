"""Commands about sessions, and reading the audit."""

from __future__ import annotations

from functools import partial

from orchestration.bridge import audit, authority, wire
from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.commanding.desk import Desk, caught, fence
from orchestration.bridge.message import check_text
from orchestration.bridge.refusal import Refused
from orchestration.bridge.state import Change, Facts, Session


class SessionCommands(Desk):
    """What can be told about sessions."""

    async def heartbeat_session(self, caller: Caller, asked: wire.HeartbeatSession) -> wire.SessionHeartbeat:
        """Tell that a session lives. The audit keeps what changes in a session, not every beat of it."""
        check = caught(
            partial(authority.check_claim, caller, agent_id=asked.agent_id),
            partial(authority.check_workspace, caller, workspace_id=asked.workspace_id),
            partial(check_text, "session_id", asked.session_id, limit=800),
            partial(check_text, "runtime", asked.runtime, limit=256),
        )

        def plan(facts: Facts) -> Change[wire.SessionHeartbeat]:
            check()
            session = Session(
                workspace_id=caller.workspace_id,
                agent_id=caller.agent_id,
                session_id=asked.session_id,
                runtime=asked.runtime,
                management_mode=asked.management_mode,
                resumable=asked.resumable,
                status=asked.status,
                heartbeat_at=facts.now,
            )
            before = audit.of_session(facts.session) if facts.session else None
            after = audit.of_session(session)
            answer = wire.SessionHeartbeat(
                agent_id=caller.agent_id, session_id=asked.session_id, status=asked.status, recorded_at=facts.now
            )
            told = audit.note(caller, "heartbeat_session", facts, before=before, after=after)
            return Change(answer=answer, session=session, audit=(told,) if before != after else ())

        return await self.in_workspace(caller, "heartbeat_session", plan, session_id=asked.session_id)


class AuditCommands(Desk):
    """What can be asked about the audit."""

    async def get_audit(self, caller: Caller, asked: wire.GetAudit) -> wire.AuditRead:
        """Read the audit of the workspace, or of one thread in it."""
        await self._check(caller, asked.thread_id)
        found = await self.store.audit(
            workspace_id=_workspace(caller), thread_id=asked.thread_id, after=asked.after, limit=asked.limit + 1
        )
        page = found[: asked.limit]
        return wire.AuditRead(
            entries=page,
            next_after=page[-1].entry if page else asked.after,
            has_more=len(found) > len(page),
        )

    async def latest_audit(self, caller: Caller, thread_id: str | None, most: int) -> tuple[wire.AuditEntry, ...]:
        """Read the newest entries, oldest first; for klorosctl."""
        await self._check(caller, thread_id)
        return await self.store.latest_audit(workspace_id=_workspace(caller), thread_id=thread_id, limit=most)

    async def _check(self, caller: Caller, thread_id: str | None) -> None:
        await self.allowed(caller, "get_audit")
        if thread_id is not None:
            await self._known(caller, thread_id)

    async def _known(self, caller: Caller, thread_id: str) -> None:
        row = await self.store.thread(thread_id)
        if row is None or fence(caller) not in (None, row.workspace_id):
            refusal: Refused = authority.not_found("thread", foreign=row is not None)
            await self.refuse(caller, "get_audit", refusal, thread_id=thread_id)


def _workspace(caller: Caller) -> str | None:
    return None if caller.role is Role.OPERATOR else caller.workspace_id
