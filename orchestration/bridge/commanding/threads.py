"""Commands about threads: opening, looking, listing, summing up, and changing where one stands."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from orchestration.bridge import audit, authority, summary, thread, wire
from orchestration.bridge.authority import SEES_ALL
from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.commanding.desk import Desk, caught, deferred
from orchestration.bridge.message import check_text, check_title, reaches
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Change, Facts, FoundFinding, Member, Post, Progress, ThreadRow

_PAGE: Final = 200
_MAX_REASON: Final = 4000
_SAID: Final = {
    wire.ThreadStatus.BLOCKED: wire.EventType.THREAD_ESCALATED.value,
    wire.ThreadStatus.RESOLVED: wire.EventType.THREAD_RESOLVED.value,
}


class ThreadCommands(Desk):
    """What can be asked about threads."""

    async def create_thread(self, caller: Caller, asked: wire.CreateThread) -> wire.ThreadCreated:
        """Open a thread in the caller's workspace."""
        thread_id = self.new_id("thr")
        check = caught(
            partial(authority.check_workspace, caller, workspace_id=asked.workspace_id),
            partial(authority.check_claim, caller, agent_id=asked.created_by),
            partial(check_title, asked.title),
        )
        title = deferred(lambda: self.rules.filters.text(asked.title))

        def plan(facts: Facts) -> Change[wire.ThreadCreated]:
            check()
            row = ThreadRow(
                thread_id=thread_id,
                workspace_id=caller.workspace_id,
                title=title(),
                type=asked.type,
                status=wire.ThreadStatus.ACTIVE,
                created_by=caller.agent_id,
                created_at=facts.now,
                updated_at=facts.now,
            )
            members = _first_members(caller, asked, facts)
            told = audit.note(caller, "create_thread", facts, thread_id=thread_id, after=audit.of_thread(row, members))
            answer = wire.ThreadCreated(thread_id=thread_id, status=row.status, created_at=facts.now)
            return Change(answer=answer, created=row, joined=members, audit=(told,))

        return await self.in_workspace(caller, "create_thread", plan, thread_id=thread_id)

    async def get_thread(self, caller: Caller, asked: wire.GetThread) -> wire.Thread:
        """Look at a thread and its participants."""
        row = await self.readable(caller, "get_thread", asked.thread_id)
        return wire.Thread(
            thread_id=row.thread_id,
            workspace_id=row.workspace_id,
            title=row.title,
            type=row.type,
            status=row.status,
            status_reason=row.status_reason,
            created_by=row.created_by,
            participants=await self.store.participants(row.thread_id),
            last_seq=row.last_seq,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    async def list_threads(self, caller: Caller, asked: wire.ListThreads) -> wire.ThreadsListed:
        """List threads, newest first; a participant sees those that it takes part in."""
        sees_all = caller.role in SEES_ALL
        is_operator = caller.role is Role.OPERATOR
        checks = [] if is_operator else [partial(authority.check_workspace, caller, workspace_id=asked.workspace_id)]
        if not sees_all:
            checks.append(partial(_check_own_list, caller, asked))
        await self.allowed(caller, "list_threads", *checks)
        found = await self.store.threads(
            workspace_id=asked.workspace_id if is_operator else caller.workspace_id,
            status=asked.status,
            participant=asked.participant if sees_all else caller.agent_id,
            reader=caller.agent_id,
            after=asked.after,
            limit=asked.limit + 1,
        )
        page = found[: asked.limit]
        return wire.ThreadsListed(threads=page, next_after=page[-1].thread_id if len(found) > len(page) else None)

    async def summarize_thread(self, caller: Caller, asked: wire.SummarizeThread) -> wire.ThreadSummary:
        """Sum up a thread from its findings and its latest messages."""
        row = await self.readable(caller, "summarize_thread", asked.thread_id)
        sees_all = caller.role in SEES_ALL
        messages = [
            message
            for message in await self._latest(caller, row, asked.max_messages)
            if reaches(caller.agent_id, sender=message.sender, to=message.to, sees_all=sees_all)
        ]
        findings = [_shown(found, caller) for found in await self.store.findings(row.thread_id)]
        text = summary.text(row, await self.store.participants(row.thread_id), findings, messages)
        items = summary.open_items(findings)
        if self.rules.writer is not None:
            text = await self.rules.writer.write(text, items, messages)
        return wire.ThreadSummary(thread_id=row.thread_id, summary=text, open_items=items, last_status=row.status)

    async def latest(self, caller: Caller, thread_id: str, most: int, *, until: int | None = None) -> list[wire.Message]:
        """Read the latest messages of a thread, up to a number if one is given; for klorosctl."""
        row = await self.readable(caller, "read_messages", thread_id)
        found = await self._latest(caller, row if until is None else row._replace(last_seq=until), most)
        sees_all = caller.role in SEES_ALL
        return [one for one in found if reaches(caller.agent_id, sender=one.sender, to=one.to, sees_all=sees_all)]

    async def _latest(self, caller: Caller, row: ThreadRow, most: int) -> list[wire.Message]:
        found: list[wire.Message] = []
        since = max(row.last_seq - most, 0)
        while since < row.last_seq:
            limit = min(_PAGE, row.last_seq - since)
            read = await self.store.read(row.thread_id, reader=caller.agent_id, since_seq=since, limit=limit)
            if not read.messages:
                break
            found += read.messages
            since = read.messages[-1].seq
        return found

    async def update_thread_status(self, caller: Caller, asked: wire.UpdateThreadStatus) -> wire.StatusUpdated:
        """Change where a thread stands; to where it stands already is a success that changes nothing."""
        message_id = self.new_id("msg")
        wanted = thread.Asked(asked.status, caller.role, asked.reason, asked.expected_status)
        check = caught(
            partial(authority.check_claim, caller, agent_id=asked.agent_id),
            partial(check_text, "reason", asked.reason, limit=_MAX_REASON),
        )
        filtered = deferred(lambda: self.rules.filters.text(thread.reason_kept(wanted)))

        def plan(facts: Facts, row: ThreadRow) -> Change[wire.StatusUpdated]:
            check()
            is_changed = thread.changes(row.status, row.status_reason, wanted)
            reason = filtered()
            answer = wire.StatusUpdated(
                thread_id=row.thread_id,
                status=asked.status,
                updated_at=max(facts.now, row.updated_at) if is_changed else row.updated_at,
                changed=is_changed,
            )
            before = audit.of_status(row.status, row.status_reason)
            after = audit.of_status(asked.status, reason) if is_changed else before
            told = audit.note(caller, "update_thread_status", facts, thread_id=row.thread_id, before=before, after=after)
            if not is_changed:
                return Change(answer=answer, audit=(told,))
            said = status_message(
                facts,
                row,
                message_id=message_id,
                sender=caller.agent_id,
                status=asked.status,
                reason=reason,
                traceparent=caller.traceparent,
            )
            return Change(answer=answer, status=(asked.status, reason), progress=Progress(), posts=(said,), audit=(told,))

        return await self.in_thread(caller, "update_thread_status", asked.thread_id, plan)


def status_message(
    facts: Facts,
    row: ThreadRow,
    *,
    message_id: str,
    sender: str,
    status: wire.ThreadStatus,
    reason: str,
    traceparent: str,
    seq: int | None = None,
) -> Post:
    """Write the system message that tells the thread where it stands from now on."""
    kind = _SAID.get(status, "thread_status_changed")
    message = wire.Message(
        message_id=message_id,
        thread_id=row.thread_id,
        seq=facts.next_seq if seq is None else seq,
        sender=sender,
        kind=wire.MessageKind.SYSTEM,
        body=f"{row.status} → {status}" + (f": {reason}" if reason else ""),
        metadata={"event_type": kind, "from": row.status.value, "to": status.value, "reason": reason},
        created_at=facts.now,
        traceparent=traceparent,
    )
    return Post(message=message, thread_status=status)


def _first_members(caller: Caller, asked: wire.CreateThread, facts: Facts) -> tuple[Member, ...]:
    """List whom a thread begins with: its creator as well, unless a coordinator or operator opens it for others."""
    names = dict.fromkeys(asked.participants)
    if caller.role is Role.PARTICIPANT or not names:
        names = dict.fromkeys((caller.agent_id, *names))
    if len(names) > wire.MAX_PARTICIPANTS:
        raise Refused(
            Code.INVALID_ARGUMENT,
            f"A thread takes {wire.MAX_PARTICIPANTS} participants, and these are {len(names)}, you among them.",
            rule="participant.most",
            details={"field": "participants"},
        )
    return tuple(
        Member(
            agent_id=name,
            role=caller.role if name == caller.agent_id else Role.PARTICIPANT,
            joined_at=facts.now,
        )
        for name in names
    )


def _check_own_list(caller: Caller, asked: wire.ListThreads) -> None:
    if asked.participant not in (None, caller.agent_id):
        raise Refused(
            Code.INSUFFICIENT_AUTHORITY,
            "You see the threads that you take part in; those of others take a coordinator or an auditor.",
            rule="authority.list_threads.participant",
        )


def _shown(found: FoundFinding, caller: Caller) -> FoundFinding:
    """Leave out the words of a report that was meant for somebody else."""
    if reaches(caller.agent_id, sender=found.finding.reported_by, to=found.to, sees_all=caller.role in SEES_ALL):
        return found
    return replace(found, body="")
