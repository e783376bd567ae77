"""What all commands share: the way from a caller through authority and rules into the store, and its trace in the audit.

A mutation is one plan: fence, authority, then the rules of the command. Whatever of these refuses becomes a refusal with
its audit row in the same transaction. A read is checked after it was made, before anything of it goes out; a refused one
leaves its row as well. Checks that need no facts are made outside (`caught`), so that they take no time under the lock,
and are raised inside, after authority, so that a stranger learns nothing from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from orchestration.bridge import audit, authority
from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.commanding.beyond_rate import BeyondRate, Counted
from orchestration.bridge.filtering import Judge
from orchestration.bridge.filters import Filters
from orchestration.bridge.guards import Limits
from orchestration.bridge.port import Store
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Ask, Change, Facts, ThreadRow
from orchestration.bridge.summarising import Writer
from orchestration.host import chance, clock

T = TypeVar("T")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say of the rules."""

    limits: Limits = field(default_factory=Limits)
    filters: Filters = field(default_factory=Filters)
    judge: Judge | None = None
    """A program that looks at texts before they are kept; None: no such thing."""
    writer: Writer | None = None
    """Who writes better summaries than ours; None: nobody."""


class Desk:
    """The store, the rules, and the ways into them."""

    def __init__(self, store: Store, rules: Rules | None = None, *, now: Callable[[], datetime] = clock.now) -> None:
        self.store = store
        self.rules = rules or Rules()
        self._now = now
        self._beyond_rate = BeyondRate()

    def new_id(self, kind: str) -> str:
        """Make an id of `thr`, `msg` or `trg`: 48 bits of time in milliseconds, which sorts them, and 80 of chance."""
        return f"{kind}_{int(self._now().timestamp() * 1000):012x}{chance.digits()}"

    async def in_thread(
        self,
        caller: Caller,
        method: str,
        thread_id: str,
        plan: Callable[[Facts, ThreadRow], Change[Answer]],
        *,
        concerns: str = "",
        **asked: Any,
    ) -> Answer:
        """Change a thread: fence, authority, then the plan.

        Args:
            concerns: the agent whom it is about. asked: what more the plan needs of `Facts`, see `Ask`.
        """

        has_row = False

        def guarded(facts: Facts) -> Change[Answer]:
            nonlocal has_row
            try:
                thread = visible(facts)
                at = authority.standing(caller, takes_part=caller.agent_id in facts.members, created_by=thread.created_by)
                authority.check(method, caller, at, concerns=concerns)
                return plan(facts, thread)
            except Refused as refusal:
                has_row = refusal.code is Code.RATE_LIMITED and self._beyond_rate.has_row(caller, refusal, facts.now)
                return Change(refusal=refusal) if has_row else _refusal(caller, method, thread_id, facts, refusal)

        ask = Ask(workspace_id=fence(caller), thread_id=thread_id, agent_id=caller.agent_id, **asked)
        try:
            return await self.store.change(ask, guarded)
        except Refused as refusal:
            if refusal.code is Code.RATE_LIMITED:
                note = self._beyond_rate.count if has_row else self._beyond_rate.row_written
                note(caller, refusal, self._now())
            raise

    async def write_beyond_rate(self, *, all_of_it: bool = False) -> None:
        """Write what was refused beyond the rate and has no row yet: of the minutes that are over, or all of it.

        Raises:
            Refused: UNAVAILABLE; what could not be written stays counted.
        """
        due = self._beyond_rate.due(None if all_of_it else self._now())
        try:
            while due:
                await self._write_counted(due[-1])
                due.pop()
        finally:
            for one in due:
                self._beyond_rate.add(one)

    async def _write_counted(self, counted: Counted) -> None:
        caller = counted.caller
        span = {"since": counted.since.isoformat(), "until": counted.until.isoformat()}

        def plan(facts: Facts) -> Change[None]:
            told = audit.refused(audit.note(caller, "post_message", facts), counted.refusal)
            return Change(audit=(told._replace(after={"refusals": counted.refusals, **span}),))

        await self.store.change(Ask(workspace_id=caller.workspace_id, agent_id=caller.agent_id), plan)

    async def in_workspace(
        self,
        caller: Caller,
        method: str,
        plan: Callable[[Facts], Change[Answer]],
        *,
        thread_id: str | None = None,
        **asked: Any,
    ) -> Answer:
        """Change what belongs to no thread, or make the thread `thread_id`: authority, then the plan."""

        def guarded(facts: Facts) -> Change[Answer]:
            try:
                authority.check(method, caller, authority.standing(caller, takes_part=False))
                return plan(facts)
            except Refused as refusal:
                return _refusal(caller, method, None, facts, refusal)

        ask = Ask(workspace_id=caller.workspace_id, thread_id=thread_id, agent_id=caller.agent_id, **asked)
        return await self.store.change(ask, guarded)

    async def readable(self, caller: Caller, method: str, thread_id: str) -> ThreadRow:
        """Give a thread that the caller may read by this method; what it may not read is refused and audited."""
        reading = await self.store.read(thread_id, reader=caller.agent_id, since_seq=0, limit=0)
        return await self.checked(caller, method, thread_id, reading.thread, takes_part=reading.member is not None)

    async def checked(
        self, caller: Caller, method: str, thread_id: str, thread: ThreadRow | None, *, takes_part: bool
    ) -> ThreadRow:
        """Let out what was read of a thread, or refuse it and leave a row in the audit."""
        try:
            if thread is None or fence(caller) not in (None, thread.workspace_id):
                raise authority.not_found("thread", foreign=thread is not None)
            at = authority.standing(caller, takes_part=takes_part, created_by=thread.created_by)
            authority.check(method, caller, at)
        except Refused as refusal:
            await self.refuse(caller, method, refusal, thread_id=thread_id)
        return thread

    async def allowed(self, caller: Caller, method: str, *checks: Callable[[], None]) -> None:
        """Let a read of a workspace pass its authority and checks, or refuse it and leave a row in the audit."""
        try:
            authority.check(method, caller, authority.standing(caller, takes_part=True))
            for check in checks:
                check()
        except Refused as refusal:
            await self.refuse(caller, method, refusal)

    async def refuse(self, caller: Caller, method: str, refusal: Refused, *, thread_id: str | None = None) -> NoReturn:
        """Refuse a read, once its row in the audit is safe."""
        ask = Ask(workspace_id=fence(caller), thread_id=thread_id, agent_id=caller.agent_id)
        await self.store.change(ask, lambda facts: _refusal(caller, method, thread_id, facts, refusal))
        raise refusal


def fence(caller: Caller) -> str | None:
    """Give the workspace that a caller sees; None, for an operator, is all of them."""
    return None if caller.role is Role.OPERATOR else caller.workspace_id


def visible(facts: Facts) -> ThreadRow:
    """Give the thread of the facts, or refuse as if there were none."""
    if facts.thread is None:
        raise authority.not_found("thread", foreign=facts.elsewhere)
    return facts.thread


def deferred(make: Callable[[], T]) -> Callable[[], T]:
    """Make a value now, and give it, or raise the refusal of making it, later."""
    try:
        made = make()
    except Refused as refusal:
        kept = refusal  # which is unbound at the end of `except`

        def later() -> NoReturn:
            raise kept

        return later
    return lambda: made


def caught(*checks: Callable[[], None]) -> Callable[[], None]:
    """Make checks now, and raise the first refusal among them later."""

    def all_of_them() -> None:
        for check in checks:
            check()

    return deferred(all_of_them)


def _refusal(caller: Caller, method: str, thread_id: str | None, facts: Facts, refusal: Refused) -> Change[Any]:
    told = audit.refused(audit.note(caller, method, facts, thread_id=thread_id), refusal)
    return Change(refusal=refusal, audit=(told,))
