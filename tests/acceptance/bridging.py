"""A bridge over a real store, without a face: callers of every kind, and the commands in their hands."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from orchestration.bridge import wire
from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.commands import Commands, Rules
from orchestration.bridge.guards import Limits
from orchestration.bridge.port import Store
from orchestration.bridge.refusal import Code, Refused
from tests.contract.conftest import opened_at

T = TypeVar("T")
HOME: Final = "kloros"
QUIET: Final = Rules(limits=Limits(agent_per_minute=0, thread_per_minute=0, max_turns=0, max_repeats=0))
_requests = itertools.count(1)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 21, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def passes(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Bridge:
    """Commands, the store under them, and its clock."""

    def __init__(self, store: Store, clock: Clock, rules: Rules) -> None:
        self.store, self.clock, self.rules = store, clock, rules
        self.commands = Commands(store, rules, now=clock)

    async def ask(self, who: Caller, method: str, **asked: Any) -> Any:
        """Ask as a face does: a model of the wire to the command of that name."""
        wanted = ASKS[method].model_validate(asked)
        answer = await getattr(self.commands, method)(who, wanted)
        if method == "read_messages" and not wanted.wait_seconds:  # the two ways to read say the same
            assert wire.MessagesRead.model_validate_json(await self.commands.read_messages_text(who, wanted)) == answer
        return answer

    async def code(self, who: Caller, method: str, **asked: Any) -> str:
        """Ask, and give `done` or the code of the refusal."""
        try:
            await self.ask(who, method, **asked)
        except Refused as refused:
            return refused.code.value
        return "done"

    async def thread(self, *members: Caller, opened_by: Caller | None = None) -> str:
        """Open a thread and give its id."""
        by = opened_by or members[0]
        names = [one.agent_id for one in members]
        made = await self.ask(by, "create_thread", workspace_id=by.workspace_id, title="Retry", participants=names)
        return str(made.thread_id)

    async def post(self, who: Caller, thread_id: str, body: str = "hello", **asked: Any) -> wire.MessagePosted:
        posted = await self.ask(who, "post_message", thread_id=thread_id, body=body, **asked)
        assert isinstance(posted, wire.MessagePosted)
        return posted

    async def event(self, who: Caller, thread_id: str, kind: str, finding: str = "", **asked: Any) -> wire.MessagePosted:
        metadata = {"event_type": kind, **({"finding_id": finding} if finding else {})}
        return await self.post(who, thread_id, f"{kind} {finding}", kind="event", metadata=metadata, **asked)

    async def waited_for(self, readers: int) -> None:
        """Come back once so many wait for news."""
        async with asyncio.timeout(10):
            while self.store.figures()["waiters"] < readers:
                await asyncio.sleep(0.005)

    async def audit(self, **asked: Any) -> tuple[wire.AuditEntry, ...]:
        """Read the whole audit, as the operator of the host."""
        read = await self.ask(caller("ada", Role.OPERATOR), "get_audit", limit=200, **asked)
        return tuple(read.entries)


def _asks() -> dict[str, Any]:
    from orchestration.bridge.methods import METHODS

    return {method.name: method.asks for method in METHODS}


ASKS: Final = _asks()


def caller(agent_id: str, role: Role = Role.PARTICIPANT, workspace_id: str = HOME) -> Caller:
    """Make a verified identity with a request id of its own."""
    return Caller(agent_id=agent_id, workspace_id=workspace_id, role=role, request_id=f"req-{next(_requests)}")


@asynccontextmanager
async def bridge(place: str, rules: Rules = QUIET) -> AsyncIterator[Bridge]:
    """Open a bridge over the store at a place."""
    clock = Clock()
    store = await opened_at(place, clock=clock)
    try:
        yield Bridge(store, clock, rules)
    finally:
        await store.close()


def play(place: str, scene: Callable[[Bridge], Awaitable[T]], rules: Rules = QUIET) -> T:
    """Play a scene on a bridge of its own."""

    async def played() -> T:
        async with bridge(place, rules) as opened:
            return await scene(opened)

    return asyncio.run(played())


async def refused(asking: Awaitable[Any]) -> Refused:
    """Give the refusal that a request comes to."""
    try:
        await asking
    except Refused as refusal:
        return refusal
    raise AssertionError("it was not refused")


__all__ = ["HOME", "QUIET", "Bridge", "Code", "bridge", "caller", "play", "refused"]
