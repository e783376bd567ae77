"""The supervisor: it looks at every case, lets the rules decide, has the step carried out and recorded, again and again.

A pass is level-triggered: it decides from what the store, the terminals and the turns say now, so that one which is missed,
repeated or killed anywhere changes nothing but the time. One follows every interval, and at once when the store hints at
news. Cases are seen to side by side, each for itself: one that fails, or takes long, keeps no other waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from orchestration.bridge.refusal import Refused
from orchestration.bridge.wake import policy, trigger
from orchestration.bridge.wake.claims import Claims, boottime
from orchestration.bridge.wake.limits import Limits
from orchestration.bridge.wake.port import WakeStore
from orchestration.bridge.wake.reach import Reach, TurnsOfHost, Words, place_of, token_of
from orchestration.bridge.wake.state import Case, Wake, Way
from orchestration.bridge.wake.steps import Steps
from orchestration.bridge.wake.telling import Counted
from orchestration.errors import KlorosError
from orchestration.host import tasks
from orchestration.host.journal import Event, Priority, log

AT_ONCE: Final = 8
"""Cases that are seen to at one time, each with what it starts or prompts."""
_STEPS: Final = 12
"""Steps of one case within a pass: queue, claim, attempt, and what attempts that fail at once lead to."""
_CASE_SECONDS: Final = 60.0
_QUIET: Final = 60.0
"""Seconds after which a supervisor that has nothing to do says so again."""
_PAUSE: Final = 0.05
"""Least seconds between two passes, whatever hints there are."""
_SHARE: Final = 4
"""A pass that found nothing to do is followed by a pause of so many times what it took: much that is no news may be written
to the store."""

_LONGEST_PAUSE: Final = 0.2


class Telling(Protocol):
    """Where it tells how it stands."""

    async def tell(self, counted: Counted, *, news: bool) -> None:
        """Tell how waking stands, when there is news or it is time to again; what was told is counted no more.

        Raises:
            Refused: the store is out of reach.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What one pass did."""

    cases: int
    did: Mapping[str, int]
    """Steps by their names; empty when there was nothing to do."""
    failed: int
    """Cases that could not be dealt with; the next pass takes them up again."""


class Supervisor:
    """One supervisor."""

    def __init__(
        self,
        store: WakeStore,
        reach: Reach,
        turns: TurnsOfHost,
        words: Words,
        *,
        limits: Limits,
        holder: str,
        now: Callable[[], datetime],
        clock: Callable[[], float] = boottime,
        refused: Callable[[], str] = lambda: "",
    ) -> None:
        """Take what it works with.

        Args:
            holder: what it calls itself, from `reach.name`.
            now: the time, aware UTC.
            clock: see `claims.boottime`.
            refused: why nothing may be done now; empty when something may.
        """
        self.stopping = asyncio.Event()
        self._store = store
        self._turns = turns
        self._limits = limits
        self._holder = holder
        self._now = now
        self._clock = clock
        self._refused = refused
        self._claims = Claims(store, holder=holder, lease=limits.lease, clock=clock, given_up=self._given_up)
        self._steps = Steps(
            store, reach, turns, words, self._claims, limits=limits, holder=holder, now=now, stopping=self.stopping
        )
        self._busy: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._failed = 0
        self._unavailable: Refused | None = None
        self._pass_began: float | None = None
        self._told_idle = self._told_fault = self._told_refused = -_QUIET

    @property
    def lives(self) -> bool:
        """Whether no pass takes longer than one can."""
        return self._pass_began is None or self._clock() - self._pass_began < 2 * _CASE_SECONDS

    @property
    def counted(self) -> Counted:
        """What has happened since it was last told."""
        return self._steps.counted

    async def run(self, telling: Telling) -> None:
        """Do one pass after another until `stopping` is set."""
        keeping = asyncio.create_task(self._claims.keep())
        try:
            while not self.stopping.is_set():
                began = self._clock()
                did_something = await self._try(telling)
                least = 0.0 if did_something else min((self._clock() - began) * _SHARE, _LONGEST_PAUSE)
                await self._until_stopped(asyncio.sleep(max(_PAUSE, least)))
                await self._until_stopped(self._news())
        finally:
            await tasks.end([keeping])

    async def one_pass(self) -> Passed:
        """Look at every case once, and do what is to be done now.

        Raises:
            Refused: the store is out of reach.
        """
        self._pass_began = self._clock()
        self._failed, self._unavailable, self._steps.look_at = 0, None, None
        self._steps.did.clear()
        try:
            cases = await self._store.cases()
            for case in cases:
                key = case.thread_id, case.agent_id
                if key not in self._busy:
                    self._busy[key] = asyncio.create_task(self._see_to(case))
            if self._busy:  # one that takes long goes on beside the next passes
                await asyncio.wait(self._busy.values(), timeout=self._limits.interval.total_seconds())
        finally:
            self._pass_began = None
        if self._unavailable is not None:
            raise self._unavailable
        return Passed(cases=len(cases), did={name: n for name, n in self._steps.did.items() if n}, failed=self._failed)

    async def end(self, *, within: float) -> None:
        """Begin nothing more, let what is being done come to its end, and give back what is claimed."""
        self.stopping.set()
        if self._busy:
            await asyncio.wait(self._busy.values(), timeout=within)
        await tasks.end(self._busy.values())
        await self._claims.give_back(due_at=self._now())

    async def _try(self, telling: Telling) -> bool:
        """Pass, and say how it went; False when there was nothing to do."""
        if why := self._refused():
            if self._is_due("_told_refused"):
                log(Event.TICK_REFUSED, f"agents are not woken: {why}", priority=Priority.WARNING)
            return False
        self._told_refused = -_QUIET
        counted = self._steps.counted
        try:
            passed = await self.one_pass()
            report(passed, counted, quiet=not self._is_due("_told_idle"))
            if passed.did or passed.failed:
                self._told_idle = -_QUIET
            await telling.tell(counted, news=bool(passed.did))
        except Refused as refused:
            counted.passes["failed"] += 1
            if self._is_due("_told_fault"):
                log(Event.TICK_FAILED, f"the store is out of reach: {refused.message}", priority=Priority.ERROR)
            return False
        self._told_fault = -_QUIET
        return bool(passed.did)

    async def _news(self) -> None:
        """Wait until something may have changed, or is due."""
        most, due = self._limits.interval.total_seconds(), self._steps.look_at
        seconds = most if due is None else min(most, max((due - self._now()).total_seconds(), 0.0))
        began = self._clock()
        with suppress(Refused):
            await self._store.wait_for_work(seconds=seconds)
            return
        await asyncio.sleep(max(seconds - (self._clock() - began), 0.0))

    async def _until_stopped(self, waiting: Any) -> None:
        """Wait for something, but not longer than until we are to stop."""
        wait, stop = asyncio.ensure_future(waiting), asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait((wait, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.end((wait, stop))

    async def _see_to(self, case: Case) -> None:
        key = case.thread_id, case.agent_id
        try:
            async with self._room, asyncio.timeout(_CASE_SECONDS):
                await self._step_by_step(case)
        except Refused as refused:
            self._unavailable = refused
        except Exception as error:
            self._failed += 1
            fault = error.message if isinstance(error, KlorosError) else f"{type(error).__name__}: {error}"
            told = f"{case.agent_id} in {case.thread_id} can't be dealt with now: {fault}"
            log(Event.SUPERVISOR_FAILED, told, priority=Priority.ERROR, thread_id=case.thread_id, agent_id=case.agent_id)
        finally:
            del self._busy[key]

    async def _step_by_step(self, case: Case) -> None:
        """Take one step after another until there is nothing to do now."""
        held: frozenset[str] = frozenset()
        for _ in range(_STEPS):
            if self.stopping.is_set():
                return
            decision = policy.decide(await self._steps.look(case, held), self._limits)
            goes_on, found_held = await self._steps.carry_out(case, decision)
            if not goes_on:
                return
            held |= found_held
            found = await self._store.case(case.thread_id, case.agent_id)
            if found is None:
                return
            case = found
        self._steps.look_again(self._now())

    async def _given_up(self, wake: Wake) -> None:
        """End the turn of a trigger that a person has ended."""
        attempt = trigger.in_flight(wake)
        if attempt is not None and attempt.way is not Way.LIVE and place_of(attempt.holder) == place_of(self._holder):
            await self._turns.cancel(token_of(wake, attempt.number))

    def _is_due(self, name: str) -> bool:
        """Say whether something is to be said again, and take it as said."""
        now = self._clock()
        due = now - getattr(self, name) >= _QUIET
        if due:
            setattr(self, name, now)
        return bool(due)


def report(passed: Passed, counted: Counted, *, quiet: bool) -> None:
    """Count and log a pass; one that did nothing is only counted when `quiet`."""
    counts: dict[str, Any] = {"cases": passed.cases, "failed": passed.failed or None, **passed.did}
    if passed.failed:
        counted.passes["failed"] += 1
        told = f"{passed.failed} of {passed.cases} cases could not be dealt with; the next pass tries again"
        log(Event.TICK_FAILED, told, priority=Priority.ERROR, **counts)
    elif passed.did:
        counted.passes["completed"] += 1
        told = ", ".join(f"{number} {what}" for what, number in passed.did.items())
        log(Event.TICK_COMPLETED, f"{passed.cases} cases: {told}", **counts)
    else:
        counted.passes["idle"] += 1
        if not quiet:
            log(Event.TICK_IDLE, f"{passed.cases} cases, nothing to do", **counts)
