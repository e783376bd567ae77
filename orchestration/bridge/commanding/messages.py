"""Commands about messages: posting, reading, waiting, searching, and saying up to where one has read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from orchestration.bridge import audit, authority, guards, message, wire
from orchestration.bridge.authority import SEES_ALL
from orchestration.bridge.caller import GUARD, Caller, Role
from orchestration.bridge.commanding.desk import Desk
from orchestration.bridge.commanding.threads import status_message
from orchestration.bridge.filtering import Judge
from orchestration.bridge.filters import Filters
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Change, Facts, Post, Progress, ThreadRow
from orchestration.bridge.store import rows
from orchestration.bridge.thread import check_open
from orchestration.host import clock
from orchestration.host.journal import Event, Priority, log

T = TypeVar("T")
_MOST_PAGES: Final = 10  # of messages for others, before a reader is answered with none and told to go on


class _Page(NamedTuple, Generic[T]):
    messages: T
    """Those that the reader gets; false when there are none."""
    next_seq: int
    has_more: bool


_Reads: TypeAlias = Callable[[int], Awaitable[_Page[T]]]


class _Posted(NamedTuple):
    message_id: str
    seq: int
    thread_status: wire.ThreadStatus
    created_at: datetime
    blocked: str = ""
    """Why a loop guard has blocked the thread on this message."""


class MessageCommands(Desk):
    """What can be asked about messages."""

    async def post_message(self, caller: Caller, asked: wire.PostMessage) -> wire.MessagePosted:
        """Post a message, to all or to one participant; a repeat under the same key answers with the first."""
        message_id, seq, status, at, _ = await self._post(caller, asked)
        return wire.MessagePosted(message_id=message_id, seq=seq, thread_status=status, created_at=at)

    async def post_message_text(self, caller: Caller, asked: wire.PostMessage) -> bytes:
        """Do as `post_message`, and give its answer as JSON: to make a model and write that takes five times as long."""
        message_id, seq, status, at, _ = await self._post(caller, asked)
        answer = f'{{"message_id":"{message_id}","seq":{seq},"thread_status":"{status}","created_at":"{rows.text(at)}"}}'
        return answer.encode()

    async def _post(self, caller: Caller, asked: wire.PostMessage) -> _Posted:
        post = _Posting(self, caller, asked)
        if self.rules.judge is not None:
            await self.readable(caller, "post_message", asked.thread_id)  # nobody else keeps the program busy
            await post.judged(self.rules.judge)
        posted = await self.in_thread(
            caller,
            "post_message",
            asked.thread_id,
            post.plan,
            idempotency_key=asked.idempotency_key,
            replies_to=asked.in_reply_to,
            finding_id=post.event.finding or None if post.event else None,
        )
        if posted.blocked:
            told = f"thread {asked.thread_id} is blocked, and waits for a coordinator or operator: {posted.blocked}"
            told_of = {"thread": asked.thread_id, "request": caller.request_id, "traceparent": caller.traceparent or None}
            log(Event.THREAD_BLOCKED, told, priority=Priority.WARNING, **told_of)
        return posted

    async def read_messages(self, caller: Caller, asked: wire.ReadMessages) -> wire.MessagesRead:
        """Read messages after a number; with `wait_seconds`, wait for one when there is none yet."""
        sees_all = caller.role in SEES_ALL

        async def page(since: int) -> _Page[tuple[wire.Message, ...]]:
            found = await self.store.read(asked.thread_id, reader=caller.agent_id, since_seq=since, limit=asked.limit + 1)
            row = await self.checked(
                caller, "read_messages", asked.thread_id, found.thread, takes_part=found.member is not None
            )
            if asked.since_seq > row.last_seq:
                await self._refuse_ahead(caller, asked, row)
            listed = found.messages[: asked.limit]
            mine = tuple(
                one for one in listed if message.reaches(caller.agent_id, sender=one.sender, to=one.to, sees_all=sees_all)
            )
            return _Page(mine, listed[-1].seq if listed else since, len(found.messages) > len(listed))

        read = await self._read(caller, asked, page)
        return wire.MessagesRead(messages=read.messages, next_seq=read.next_seq, has_more=read.has_more)

    async def read_messages_text(self, caller: Caller, asked: wire.ReadMessages) -> bytes:
        """Do as `read_messages`, and give its answer as JSON: the store writes it, which takes a fraction of the time."""
        sees_all = caller.role in SEES_ALL

        async def page(since: int) -> _Page[bytes]:
            found = await self.store.read_text(
                asked.thread_id, reader=caller.agent_id, since_seq=since, limit=asked.limit, sees_all=sees_all
            )
            row = await self.checked(
                caller, "read_messages", asked.thread_id, found.thread, takes_part=found.member is not None
            )
            if asked.since_seq > row.last_seq:
                await self._refuse_ahead(caller, asked, row)
            mine = b"" if found.messages == b"[]" else found.messages
            return _Page(mine, found.next_seq, found.next_seq < row.last_seq)

        read = await self._read(caller, asked, page)
        more = b"true" if read.has_more else b"false"
        return b'{"messages":%b,"next_seq":%d,"has_more":%b}' % (read.messages or b"[]", read.next_seq, more)

    async def _read(self, caller: Caller, asked: wire.ReadMessages, page: _Reads[T]) -> _Page[T]:
        """Read a page, skip those with nothing for the caller, and wait if there is nothing at all."""
        if asked.agent_id not in (None, caller.agent_id):
            await self._refuse_claim(caller, "read_messages", asked.thread_id, asked.agent_id)
        until = clock.monotonic() + asked.wait_seconds
        since, pages = asked.since_seq, 0
        while True:
            read = await page(since)
            since, pages = read.next_seq, pages + 1
            if read.messages or pages >= _MOST_PAGES:
                return read
            if read.has_more:
                continue
            left = until - clock.monotonic()
            if left <= 0 or not await self.store.wait_for_news(asked.thread_id, since_seq=since, seconds=left):
                return read
            pages = 0

    async def _refuse_ahead(self, caller: Caller, asked: wire.ReadMessages, row: ThreadRow) -> None:
        """Refuse to wait for what may never come: a number that was never given out, or is lost by a restore."""
        refusal = Refused(
            Code.INVALID_ARGUMENT,
            f"since_seq is past the latest message, {row.last_seq}.",
            rule="messages.past_latest",
            details={"field": "since_seq", "last_seq": row.last_seq},
        )
        await self.refuse(caller, "read_messages", refusal, thread_id=asked.thread_id)

    async def _refuse_claim(self, caller: Caller, method: str, thread_id: str, agent_id: str | None) -> None:
        await self.readable(caller, method, thread_id)  # who may not look learns no more than that
        try:
            authority.check_claim(caller, agent_id=agent_id)
        except Refused as refusal:
            await self.refuse(caller, method, refusal, thread_id=thread_id)

    async def ack_read(self, caller: Caller, asked: wire.AckRead) -> wire.ReadAcked:
        """Move one's cursor: never back, and never past the latest message."""

        def plan(facts: Facts, row: ThreadRow) -> Change[wire.ReadAcked]:
            authority.check_claim(caller, agent_id=asked.agent_id)
            member = facts.members.get(caller.agent_id)
            if member is None:
                raise Refused(
                    Code.FORBIDDEN,
                    "You have no cursor in this thread, for you do not take part in it.",
                    rule="participant.cursor",
                )
            if asked.last_read_seq > row.last_seq:
                raise Refused(
                    Code.INVALID_ARGUMENT,
                    f"last_read_seq is past the latest message, {row.last_seq}.",
                    rule="participant.past_latest",
                    details={"field": "last_read_seq", "last_seq": row.last_seq},
                )
            cursor = max(member.last_read_seq, asked.last_read_seq)
            is_changed = cursor != member.last_read_seq
            answer = wire.ReadAcked(
                thread_id=row.thread_id, agent_id=caller.agent_id, last_read_seq=cursor, changed=is_changed
            )
            if not is_changed:
                return Change(answer=answer)
            told = audit.note(
                caller,
                "ack_read",
                facts,
                thread_id=row.thread_id,
                before={"last_read_seq": member.last_read_seq},
                after={"last_read_seq": cursor},
            )
            return Change(answer=answer, read=(caller.agent_id, cursor), audit=(told,))

        return await self.in_thread(caller, "ack_read", asked.thread_id, plan)

    async def search_messages(self, caller: Caller, asked: wire.SearchMessages) -> wire.MessagesFound:
        """Search messages by their words: in one thread, or in all that the caller may read."""
        workspace_id = caller.workspace_id
        if asked.thread_id is not None:
            workspace_id = (await self.readable(caller, "search_messages", asked.thread_id)).workspace_id
        else:
            await self.allowed(caller, "search_messages")
        sees_all = caller.role in SEES_ALL
        found = await self.store.search(
            asked.query,
            workspace_id=workspace_id,
            thread_id=asked.thread_id,
            participant=None if sees_all else caller.agent_id,
            limit=asked.limit,
        )
        return wire.MessagesFound(messages=found)


class _Posting:
    """One post: what can be known of it before the lock, and the plan under it."""

    def __init__(self, desk: Desk, caller: Caller, asked: wire.PostMessage) -> None:
        self._caller, self._asked, self._limits = caller, asked, desk.rules.limits
        self._message_id = desk.new_id("msg")
        self._body, self._metadata = asked.body, asked.metadata
        self._digest = ""
        self._unfit: Refused | None = None
        """What is wrong with it, whatever the thread."""
        self._unkept: Refused | None = None
        """What a content filter has against it; a repeat of what was kept before is answered nevertheless."""
        self.event: message.Event | None = None
        try:
            self._check()
            self._digest = message.digest(asked)
        except Refused as refusal:
            self._unfit = refusal
            return
        try:
            self._filter(desk.rules.filters)
        except Refused as refusal:
            self._unkept = refusal
            return
        self.event = message.event_of(asked.kind, self._metadata, in_reply_to=asked.in_reply_to, message_id=self._message_id)

    def _check(self) -> None:
        asked = self._asked
        authority.check_claim(self._caller, agent_id=asked.agent_id)
        message.check(asked)
        if asked.kind is wire.MessageKind.SYSTEM and self._caller.role not in authority.SPEAKS_FOR_THE_SYSTEM:
            raise Refused(
                Code.INSUFFICIENT_AUTHORITY,
                "System messages are posted by coordinators, operators and the bridge itself.",
                rule="authority.post_message.system",
            )

    def _filter(self, filters: Filters) -> None:
        """Make body and metadata what is kept of them; that must fit as well."""
        if filters.patterns:
            self._body, self._metadata = filters.message(self._body, self._metadata)
            message.check_text("body", self._body, limit=wire.MAX_BODY)
            message.check_metadata(self._metadata)

    async def judged(self, judge: Judge) -> None:
        """Have a program look at the texts, if nothing is wrong with them so far."""
        if self._unfit is not None or self._unkept is not None:
            return
        try:
            await judge.check(self._body, self._metadata)
        except Refused as refusal:
            self._unkept = refusal

    def plan(self, facts: Facts, row: ThreadRow) -> Change[_Posted]:
        """Post it, or answer with what the key already stands for."""
        asked, caller = self._asked, self._caller
        if self._unfit is not None:
            raise self._unfit
        if facts.remembered is not None:
            message.check_repeat(facts.remembered.payload_sha256, self._digest)
            known = facts.remembered
            return Change(answer=_Posted(known.message_id, known.seq, known.thread_status, known.created_at))
        check_open(row.status)
        if asked.to is not None and asked.to not in facts.members:
            raise authority.not_found("participant")
        if asked.in_reply_to is not None and not facts.replied_to:
            raise authority.not_found("message")
        guards.check_rate("agent", facts.rate, self._limits.agent_per_minute, facts.now)
        guards.check_rate("thread", row.rate, self._limits.thread_per_minute, facts.now)
        if self._unkept is not None:
            raise self._unkept
        written = wire.Message.of(
            message_id=self._message_id,
            thread_id=row.thread_id,
            seq=facts.next_seq,
            sender=caller.agent_id,
            kind=asked.kind,
            body=self._body,
            metadata=self._metadata,
            in_reply_to=asked.in_reply_to,
            to=asked.to,
            created_at=facts.now,
            traceparent=caller.traceparent,
        )
        return self._guarded(facts, row, written)

    def _guarded(self, facts: Facts, row: ThreadRow, written: wire.Message) -> Change[_Posted]:
        """Write the message with what the loop guards make of it."""
        caller, is_turn = self._caller, self._is_turn()
        progress = guards.turned(row.progress, caller.agent_id, self.event) if is_turn else row.progress
        finding = None
        if self.event is not None and self.event.finding:
            finding = guards.told(facts.finding, self.event, sender=caller.agent_id, message_id=written.message_id)
        why = ""
        if is_turn and row.status is wire.ThreadStatus.ACTIVE:
            why = guards.tripped(progress, finding, self.event, self._limits)
        status = wire.ThreadStatus.BLOCKED if why else row.status
        notes = [audit.note(caller, "post_message", facts, thread_id=row.thread_id, after=audit.of_message(written))]
        posts = [
            Post(
                message=written,
                thread_status=status,
                idempotency_key=self._asked.idempotency_key,
                payload_sha256=self._digest,
            )
        ]
        if why:
            posts.append(
                status_message(
                    facts,
                    row,
                    message_id=message.id_after(written.message_id),
                    sender=GUARD,
                    status=status,
                    reason=why,
                    traceparent=caller.traceparent,
                    seq=written.seq + 1,
                )
            )
            notes.append(
                audit.note(
                    caller,
                    "loop_guard",
                    facts,
                    thread_id=row.thread_id,
                    rule="guards.loop",
                    before=audit.of_status(row.status, row.status_reason),
                    after=audit.of_status(status, why),
                )
            )
        return Change(
            answer=_Posted(written.message_id, written.seq, status, facts.now, blocked=why),
            posts=tuple(posts),
            status=(status, why) if why else None,
            progress=Progress() if why else progress if is_turn else None,
            findings=(finding,) if finding is not None else (),
            audit=tuple(notes),
        )

    def _is_turn(self) -> bool:
        return self._caller.role is not Role.OPERATOR and self._asked.kind is not wire.MessageKind.SYSTEM
