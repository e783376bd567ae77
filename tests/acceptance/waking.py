"""A supervisor over a real store with agents that are made of paper: terminals and turns that a test moves."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from orchestration.bridge.state import Session
from orchestration.bridge.wake.limits import Limits, Means
from orchestration.bridge.wake.observation import Turn as TurnSeen
from orchestration.bridge.wake.observation import Turned
from orchestration.bridge.wake.port import Liveness, Probe, Turn, TurnTold, WakeFailed
from orchestration.bridge.wake.prompt import text
from orchestration.bridge.wake.reach import Found, Profile, name
from orchestration.bridge.wake.state import Case, Claim, Wake, Way
from orchestration.bridge.wake.supervisor import Passed, Supervisor
from orchestration.store.instants import to_text
from tests.acceptance.bridging import Bridge, Clock, bridge, caller
from tests.acceptance.host import Host
from tests.contract.waking import wakes_at

T = TypeVar("T")
EXECUTIONER, REVIEWER = caller("executioner"), caller("reviewer")
PANE: Final = "tmux:1:%0"


class PaperRuntime:
    """A runtime whose terminals and commands are on paper."""

    name = "paper"

    def __init__(self) -> None:
        self.liveness = Liveness.LIVE
        self.typed_at: datetime | None = None
        self.since: datetime | None = None
        self.prompts: list[tuple[str, str]] = []
        """Each text that was put into a terminal, with its session."""
        self.pressed: list[str] = []
        self.fails: WakeFailed | None = None
        self.delivering: Callable[[], Awaitable[None]] | None = None
        """Awaited while a prompt is put in."""

    async def probe(self, session: Session) -> Probe:
        return Probe(liveness=self.liveness, command="codex", typed_at=self.typed_at, since=self.since)

    async def deliver(self, session: Session, prompt: str) -> None:
        if self.delivering is not None:
            await self.delivering()
        if self.fails is not None:
            raise self.fails
        self.prompts.append((session.session_id, prompt))

    async def press(self, session: Session, trigger_id: str) -> None:
        self.pressed.append(trigger_id)

    def turn(self, prompt: str, *, session_id: str = "") -> Turn:
        if self.fails is not None:
            raise self.fails
        return Turn(command=("agent", session_id or "new"), prompt=prompt)

    def told(self, output: Iterable[str]) -> TurnTold:
        return TurnTold(session_id=next(iter(output), ""))


@dataclass
class Paper:
    """What a host has: its runtime, and the turns that run there. They outlive the supervisor."""

    runtime: PaperRuntime = field(default_factory=PaperRuntime)
    turns: dict[str, tuple[Turn, TurnSeen]] = field(default_factory=dict)
    """By token."""
    cancelled: list[str] = field(default_factory=list)
    ways: frozenset[Way] = frozenset(Way)
    agents: frozenset[str] = frozenset({"reviewer"})

    def profile(self, workspace_id: str, agent_id: str) -> Profile | None:
        return Profile(self.runtime, Means(self.ways)) if agent_id in self.agents else None

    async def terminal(self, session: Session) -> PaperRuntime | None:
        return self.runtime if session.session_id.startswith("tmux:") else None

    async def begin(self, turn: Turn, profile: Profile, *, token: str, claim: Claim) -> int:
        self.turns.setdefault(token, (turn, TurnSeen(turned=Turned.RUNNING)))
        return len(self.turns)

    async def find(self, token: str, told: Callable[[tuple[str, ...]], TurnTold]) -> Found:
        if token not in self.turns:
            return Found(TurnSeen(turned=Turned.UNSTARTED))
        return Found(self.turns[token][1], list(self.turns).index(token) + 1)

    async def cancel(self, token: str) -> None:
        self.cancelled.append(token)

    def ends(self, turned: Turned, **said: Any) -> None:
        """Have the newest turn end."""
        token, (turn, _) = list(self.turns.items())[-1]
        self.turns[token] = turn, TurnSeen(turned=turned, **said)

    async def prompt(self, case: Case, wake: Wake, way: Way) -> str:
        return text(case, wake, way, summary="two messages")


def claimed(host: Host, *, seconds: int = 60) -> Claim:
    """Have a supervisor claim a trigger in a host's store for this long; negative: its lease has ended."""
    claim = Claim(trigger_id="t", holder="me", fence=7, lease_until=datetime.now(UTC) + timedelta(seconds=seconds))
    host.change(
        "INSERT INTO bridge_wake_states"
        " (trigger_id, thread_id, agent_id, forced, due_at, holder, fence, lease_until, deferrals, detail)"
        f" VALUES ('t', 'th', 'reviewer', 0, '', 'me', 7, '{to_text(claim.lease_until)}', 0, '')"
    )
    return claim


class World:
    """A bridge, a clock, and supervisors beside it."""

    def __init__(self, bridge: Bridge, place: str) -> None:
        self.bridge, self.place = bridge, place
        self.clock: Clock = bridge.clock
        self.thread_id = ""
        self.paper = Paper()

    async def said(self, body: str = "done") -> None:
        """Have the executioner say something to the reviewer, in a thread of theirs."""
        if not self.thread_id:
            self.thread_id = await self.bridge.thread(EXECUTIONER, REVIEWER)
        await self.bridge.post(EXECUTIONER, self.thread_id, body)

    async def beats(self, session_id: str = PANE, **asked: Any) -> None:
        """Have the reviewer tell that a session of it lives."""
        told = {"runtime": "codex", "management_mode": "managed", "resumable": True, "status": "idle", **asked}
        await self.bridge.ask(REVIEWER, "heartbeat_session", agent_id="reviewer", session_id=session_id, **told)

    async def reads(self) -> None:
        """Have the reviewer read everything."""
        read = await self.bridge.ask(REVIEWER, "read_messages", thread_id=self.thread_id)
        await self.bridge.ask(REVIEWER, "ack_read", thread_id=self.thread_id, last_read_seq=read.next_seq)

    @asynccontextmanager
    async def supervisor(
        self,
        paper: Paper | None = None,
        *,
        host: str = "host",
        mortal: Any = None,
        refused: Callable[[], str] = lambda: "",
        **limits: Any,
    ) -> AsyncIterator[Watched]:
        """Give a supervisor with its own connection to the store; `mortal` may stand before all that it works with."""
        opened = await wakes_at(self.place, clock=self.clock)
        store: Any = mortal.of(opened) if mortal else opened
        found: Any = mortal.of(paper or self.paper) if mortal else paper or self.paper
        supervisor = Supervisor(
            store,
            found,
            found,
            found,
            limits=Limits(**limits),
            holder=name(host, "/state", process=secrets.token_hex(4)),
            now=self.clock,
            clock=lambda: self.clock.at.timestamp(),
            refused=refused,
        )
        try:
            yield Watched(supervisor, store)
        finally:
            await opened.close()

    async def wakes(self) -> tuple[Wake, ...]:
        """Return the thread's triggers as they stand, newest first."""
        store = await wakes_at(self.place, clock=self.clock)
        try:
            return await store.wakes(thread_id=self.thread_id or None)
        finally:
            await store.close()

    async def outcomes(self) -> list[str]:
        """Return what the newest trigger's attempts came to, as `way outcome code`, in order."""
        newest, *_ = await self.wakes()
        return [" ".join(str(part) for part in (one.way, one.outcome, one.code) if part) for one in newest.attempts]


class Watched:
    """A supervisor in a test's hands."""

    def __init__(self, supervisor: Supervisor, store: Any) -> None:
        self.itself, self.store = supervisor, store

    async def one_pass(self) -> Passed:
        """Renew what is claimed, as it does beside its passes, and pass."""
        claims = self.itself._claims
        for trigger_id in list(claims._held):
            await claims.renew(trigger_id)
        return await self.itself.one_pass()

    async def did(self) -> dict[str, int]:
        return dict((await self.one_pass()).did)


def play(place: str, scene: Callable[[World], Awaitable[T]]) -> T:
    """Play a scene."""

    async def played() -> T:
        async with bridge(place) as opened:
            opened.clock.at = datetime.now(UTC)  # leases run by the database's own clock
            return await scene(World(opened, place))

    return asyncio.run(played())
