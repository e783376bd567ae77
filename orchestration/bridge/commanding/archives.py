"""Commands of an operator alone, no part of the wire: writing threads out, and taking them in again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from orchestration.bridge import archive, audit, guards, wire
from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.commanding.threads import ThreadCommands
from orchestration.bridge.message import event_of
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Ask, Change, Facts, Finding, Member, Post, ThreadRow

_PAGE = 200


class ArchiveCommands(ThreadCommands):
    """What an operator does with whole threads."""

    async def export_thread(self, caller: Caller, thread_id: str) -> AsyncIterator[str]:
        """Write a thread as JSON lines: itself, its messages, its audit."""
        await self._check_operator(caller, "export_thread")
        thread = await self.get_thread(caller, wire.GetThread(thread_id=thread_id))
        summed = archive.Sum()
        yield summed.add(archive.thread_line(thread))
        since = 0
        while since < thread.last_seq:
            limit = min(_PAGE, thread.last_seq - since)
            read = await self.store.read(thread_id, reader=caller.agent_id, since_seq=since, limit=limit)
            for message in read.messages:
                yield summed.add(archive.message_line(message))
            since += limit
        after = 0
        while entries := await self.store.audit(workspace_id=None, thread_id=thread_id, after=after, limit=_PAGE):
            for entry in entries:
                yield summed.add(archive.audit_line(entry))
            after = entries[-1].entry
        yield summed.end()

    async def import_thread(
        self, caller: Caller, thread: wire.Thread, messages: Sequence[wire.Message], sha256: str
    ) -> bool:
        """Take in a thread as it was exported, under its own ids; one that is there already stays as it is.

        Returns:
            Whether it was taken in. Its audit begins anew, with the hash of the export.
        """
        await self._check_operator(caller, "import_thread")
        known = await self.store.thread(thread.thread_id)
        if known is not None:
            return False
        row = ThreadRow(
            thread_id=thread.thread_id,
            workspace_id=thread.workspace_id,
            title=thread.title,
            type=thread.type,
            status=thread.status,
            status_reason=thread.status_reason,
            created_by=thread.created_by,
            created_at=thread.created_at,
            updated_at=thread.updated_at,
        )
        members = tuple(
            Member(agent_id=one.agent_id, role=one.role, joined_at=one.joined_at, last_read_seq=one.last_read_seq)
            for one in thread.participants
        )

        def plan(facts: Facts) -> Change[bool]:
            told = audit.note(
                caller,
                "import_thread",
                facts,
                thread_id=row.thread_id,
                after={**audit.of_thread(row, members), "messages": len(messages), "sha256": sha256},
            )
            return Change(
                answer=True,
                created=row,
                joined=members,
                posts=tuple(Post(message=one, thread_status=thread.status) for one in messages),
                findings=_findings(messages),
                audit=(told,),
            )

        return await self.in_workspace(caller, "create_thread", plan, thread_id=row.thread_id)

    async def remove_thread(self, caller: Caller, thread_id: str, workspace_id: str, *, links: int, sha256: str) -> bool:
        """Take a thread that is over out of the store, with its audit, if it is still as it was exported.

        Args:
            links: how many rows of audit the export has. sha256: of the export; kept in the workspace's audit.

        Returns:
            Whether it is gone; False when something has changed since, or it was not there.
        """
        await self._check_operator(caller, "expire_thread")

        def plan(facts: Facts) -> Change[bool]:
            row = facts.thread
            if (
                row is None
                or facts.links != links
                or row.status not in (wire.ThreadStatus.RESOLVED, wire.ThreadStatus.CLOSED)
            ):
                return Change(answer=False)
            before = {**audit.of_thread(row, tuple(facts.members.values())), "messages": row.last_seq, "links": links}
            told = audit.note(caller, "expire_thread", facts, thread_id=thread_id, before=before, after={"sha256": sha256})
            return Change(answer=True, removed=True, audit=(told,))

        ask = Ask(workspace_id=workspace_id, thread_id=thread_id, agent_id=caller.agent_id, removes=True)
        return await self.store.change(ask, plan)

    async def _check_operator(self, caller: Caller, operation: str) -> None:
        if caller.role is not Role.OPERATOR:
            refusal = Refused(
                Code.INSUFFICIENT_AUTHORITY, "This takes an operator.", rule=f"authority.{operation}.{caller.role}"
            )
            await self.refuse(caller, operation, refusal)


def _findings(messages: Sequence[wire.Message]) -> tuple[Finding, ...]:
    found: dict[str, Finding] = {}
    for one in messages:
        event = event_of(one.kind, one.metadata, in_reply_to=one.in_reply_to, message_id=one.message_id)
        if event is None or not event.finding:
            continue
        finding = guards.told(found.get(event.finding), event, sender=one.sender, message_id=one.message_id)
        if finding is not None:
            found[event.finding] = finding
    return tuple(found.values())
