"""The supervisor: it looks at every case, lets the rules decide, carries out the next step of each, and records it.

Owns the order of steps and what must hold between them; what to do is `policy.decide`'s, how is a runtime's. A pass is
level-triggered: it decides from what the store, the terminals and the turns say now, so one that is missed, repeated or
killed anywhere changes nothing but the time. It follows every interval, and at once when the store hints at news.

Three things keep a prompt from being given twice:
- an attempt is recorded under the claim's fence before it is made (`begin`), and what has begun is never begun again: of
  an attempt without an end only its acknowledgement, or its turn's cycle, is looked for;
- a turn is queued under a token made of trigger and number, which a host's store takes once;
- nothing is put in or started when the claim has less than a moment left by our own clock, which also runs while this
  process does not.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol, assert_never

from orchestration.bridge.refusal import Refused
from orchestration.bridge.state import Session
from orchestration.bridge.wake import action as act
from orchestration.bridge.wake import observation, policy, trigger
from orchestration.bridge.wake.limits import IN_ITS_TERMINAL, Limits, Means
from orchestration.bridge.wake.port import Liveness, Probe, Runtime, Turn, TurnTold, WakeFailed, WakeStore
from orchestration.bridge.wake.state import Attempt, Case, Claim, Code, Outcome, Wake, Way
from orchestration.bridge.wake.telling import Counted
from orchestration.errors import KlorosError
from orchestration.host import tasks
from orchestration.host.journal import Event, Priority, log

AT_ONCE: Final = 8
"""Cases that are looked at, and agents that are prompted, at one time."""
_STEPS: Final = 8
"""Steps of one case within a pass: queue, claim, attempt, and what an attempt that fails at once leads to."""
_LOOK_SECONDS: Final = 5.0
_CASE_SECONDS: Final = 60.0
_MARGIN: Final = 2.0
"""Seconds that a claim must have left for an act under it."""
_QUIET: Final = 60.0
"""Seconds after which an idle supervisor says again that it is."""
_LIVES: Final = _CASE_SECONDS + 30.0


class Profile(NamedTuple):
    """How this host runs an agent's turns, and what that allows."""

    runtime: Runtime
    means: Means


class Reach(Protocol):
    """What this host can reach."""

    def profile(self, workspace_id: str, agent_id: str) -> Profile | None:
        """Return how an agent's turns are run here; None when they aren't."""
        ...

    async def terminal(self, session: Session) -> Runtime | None:
        """Return what has this session's terminal; None when it is none of this host."""
        ...


class TurnsOfHost(Protocol):
    """Turns of agents as cycles of this host."""

    async def begin(self, turn: Turn, *, token: str, timeout: timedelta) -> int:
        """Queue a turn, once for each token, have its process started, and return its cycle.

        Raises:
            KlorosError: it is not queued, or not started; then it is when it is looked for.
        """
        ...

    async def find(self, token: str, told: Callable[[tuple[str, ...]], TurnTold]) -> observation.Turn:
        """Say where the turn of a token stands; one that waits for its process is started."""
        ...

    async def cancel(self, token: str) -> None:
        """Have the turn of a token ended, if there is one."""
        ...


class Words(Protocol):
    """What agents are told."""

    async def prompt(self, case: Case, wake: Wake, way: Way) -> str:
        """Return the prompt; for a new session with the thread's summary."""
        ...


@dataclass(slots=True)
class _Held:
    """A claim of ours, with its end by our own clock."""

    claim: Claim
    ends: float
    session_id: str = ""
    """Of the turn that runs under it, whose one writer we are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What one pass did."""

    cases: int = 0
    did: Mapping[str, int]
    """Steps by their names; empty for a pass that did nothing."""
    failed: int = 0
    """Cases that could not be dealt with, which the next pass takes up again."""


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
        boottime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        decide: Callable[[observation.Seen, Limits], act.Decision] = policy.decide,
    ) -> None:
        """Take what it works with.

        Args:
            holder: what it calls itself, from `name`.
            now: the time, aware UTC.
            boottime: seconds by a clock that nobody sets, and that runs also while the host sleeps.
            decide: the rules.
        """
        self.limits = limits
        self.reach = reach
        self.counted = Counted()
        self.stopping = asyncio.Event()
        self._store = store
        self._turns = turns
        self._words = words
        self._holder = holder
        self._now = now
        self._boottime = boottime
        self._decide = decide
        self._held: dict[str, _Held] = {}
        self._busy: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._did: Counter[str] = Counter()
        self._failed = 0
        self._unavailable: Refused | None = None
        self._look_at: datetime | None = None
        self._idle_told = -_QUIET
        self._pass_began: float | None = None

    @property
    def lives(self) -> bool:
        """Whether no pass takes longer than one can."""
        return self._pass_began is None or self._boottime() - self._pass_began < _LIVES

    @property
    def wait(self) -> float:
        """For how many seconds nothing is due, at most an interval."""
        most = self.limits.interval.total_seconds()
        return most if self._look_at is None else min(most, max((self._look_at - self._now()).total_seconds(), 0.0))

    async def keep(self) -> None:
        """Renew claims for as long as they are held. Without end, beside the passes."""
        while True:
            await asyncio.sleep(self.limits.lease.total_seconds() / 3)
            await asyncio.gather(*(self._renew(trigger_id) for trigger_id in list(self._held)))

    async def one_pass(self) -> Passed:
        """Look at every case once, and do what is to be done now.

        Raises:
            Refused: the store is out of reach.
        """
        self._pass_began = self._boottime()
        try:
            self._did.clear()
            self._failed, self._look_at, self._unavailable = 0, None, None
            cases = await self._store.cases()
            for case in cases:
                key = case.thread_id, case.agent_id
                if key not in self._busy:
                    self._busy[key] = asyncio.create_task(self._see_to(case))
            if self._busy:  # one that takes long goes on beside the next passes
                await asyncio.wait(self._busy.values(), timeout=self.limits.interval.total_seconds())
            if self._unavailable is not None:
                raise self._unavailable
            passed = Passed(cases=len(cases), did=dict(self._did), failed=self._failed)
        finally:
            self._pass_began = None
        self._report(passed)
        return passed

    async def end(self, *, within: float) -> None:
        """Begin nothing more, let what is being done come to its end, and give back what is claimed."""
        self.stopping.set()
        if self._busy:
            await asyncio.wait(self._busy.values(), timeout=within)
        await tasks.end(self._busy.values())
        for trigger_id in list(self._held):
            held = self._held.pop(trigger_id)
            with suppress(Refused):  # its lease ends by itself
                await self._store.release(held.claim, due_at=self._now())

    async def _see_to(self, case: Case) -> None:
        key = case.thread_id, case.agent_id
        try:
            async with self._room, asyncio.timeout(_CASE_SECONDS):
                await self._steps(case)
        except Refused as refused:
            self._unavailable = refused
        except Exception as error:
            self._failed += 1
            fault = error.message if isinstance(error, KlorosError) else f"{type(error).__name__}: {error}"
            log(
                Event.SUPERVISOR_FAILED,
                f"{case.agent_id} in {case.thread_id} can't be dealt with now: {fault}",
                priority=Priority.ERROR,
                thread_id=case.thread_id,
                agent_id=case.agent_id,
            )
        finally:
            del self._busy[key]

    async def _steps(self, case: Case) -> None:
        """Take one step after another until there is nothing to do now."""
        held_elsewhere: frozenset[str] = frozenset()
        for _ in range(_STEPS):
            if self.stopping.is_set():
                return
            decision = self._decide(await self._look(case, held_elsewhere), self.limits)
            if decision.collided:
                self._tell_collision(case)
            went_on, lost_to = await self._carry_out(case, decision)
            held_elsewhere |= lost_to
            if not went_on:
                return
            found = await self._store.case(case.thread_id, case.agent_id)
            if found is None:
                return
            case = found
        self._look_again(self._now())

    async def _look(self, case: Case, held_elsewhere: frozenset[str]) -> observation.Seen:
        now = self._now()
        asked = [self._probe(session) for session in observation.to_probe(case, self.limits, now)]
        probes = {session_id: probe for session_id, probe in await asyncio.gather(*asked) if probe is not None}
        profile = self.reach.profile(case.workspace_id, case.agent_id)
        means = profile.means if profile else IN_ITS_TERMINAL if probes else None
        turn = await self._turn_of(case, profile) if observation.turn_to_find(case) else None
        return observation.Seen(
            case=case,
            holder=self._holder,
            now=self._now(),
            means=means,
            probes=probes,
            turn=turn,
            held=held_elsewhere,
        )

    async def _probe(self, session: Session) -> tuple[str, Probe | None]:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                terminal = await self.reach.terminal(session)
                return session.session_id, None if terminal is None else await terminal.probe(session)
        except WakeFailed as error:
            return session.session_id, Probe(liveness=Liveness.UNKNOWN, detail=str(error))
        except TimeoutError:
            return session.session_id, Probe(liveness=Liveness.UNKNOWN, detail=f"no answer within {_LOOK_SECONDS:.0f} s")

    async def _turn_of(self, case: Case, profile: Profile | None) -> observation.Turn | None:
        attempt = _flight(case)
        if attempt is None or place_of(attempt.holder) != place_of(self._holder):
            return observation.Turn(turned=observation.Turned.UNKNOWN)
        told = profile.runtime.told if profile else lambda _: TurnTold()
        return await self._turns.find(token_of(_wake(case), attempt.number), told)

    async def _carry_out(self, case: Case, decision: act.Decision) -> tuple[bool, frozenset[str]]:
        """Do a step; returns whether to go on with what it changed, and which session somebody else was found to hold."""
        step = decision.action
        match step:
            case act.Rest(until=until):
                self._look_again(until)
                return False, frozenset()
            case act.AwaitAck(until=until):
                self._look_again(until)
                return False, frozenset()
            case act.AwaitTurn(attempt=attempt, until=until):
                self._look_again(until)
                self._keep_session(case, attempt)
                return False, frozenset()
            case act.Queue(reason=reason):
                return await self._queue(case, reason), frozenset()
            case act.Claim():
                return await self._claim(_wake(case)), frozenset()
            case act.Release(due_at=due_at, code=code):
                self._look_again(due_at)
                await self._let_go(case, lambda claim: self._store.release(claim, due_at=due_at, code=code))
                return False, frozenset()
            case act.Defer():
                await self._defer(case, step)
                return False, frozenset()
            case act.Deliver() | act.Press():
                return await self._prompt(case, step), frozenset()
            case act.Resume():
                return await self._resume(case, step)
            case act.Spawn():
                return await self._turn(case, Way.SPAWN, step.number), frozenset()
            case act.Finish(attempt=attempt):
                return await self._finish(case, attempt), frozenset()
            case act.Settle():
                return await self._settle(case, step), frozenset()
            case _:
                assert_never(step)

    async def _queue(self, case: Case, reason: str) -> bool:
        now = self._now()
        made = await self._store.queue(
            Wake(
                trigger_id=f"trg_{int(now.timestamp() * 1000):012x}{secrets.token_hex(10)}",
                workspace_id=case.workspace_id,
                thread_id=case.thread_id,
                agent_id=case.agent_id,
                reason=reason,
                prompt="",
                requested_by=trigger.SUPERVISOR,
                created_at=now,
                due_at=now,
            )
        )
        if made:
            self._did["queued"] += 1
        return True

    async def _claim(self, wake: Wake) -> bool:
        asked = self._boottime()
        claim = await self._store.claim(wake.trigger_id, holder=self._holder, lease=self.limits.lease)
        if claim is None:
            self._held.pop(wake.trigger_id, None)
            return False
        self._held[wake.trigger_id] = _Held(claim, asked + self.limits.lease.total_seconds())
        self._did["claimed"] += 1
        return True

    async def _renew(self, trigger_id: str) -> None:
        """Prolong a claim, and our hold on the session that its turn writes to."""
        held = self._held.get(trigger_id)
        if held is None:
            return
        asked = self._boottime()
        try:
            claim = await self._store.renew(held.claim, lease=self.limits.lease)
            if claim is not None and held.session_id:
                await self._store.hold_session(held.session_id, holder=self._holder, lease=self.limits.lease)
            if claim is None and self._held.get(trigger_id) is held:
                await self._lose(trigger_id)
        except Refused:  # it is tried again in a moment; what is not renewed in time is not acted on
            return
        if claim is not None:
            held.claim, held.ends = claim, asked + self.limits.lease.total_seconds()

    async def _lose(self, trigger_id: str) -> None:
        """Do without a claim that is another's, or that an operator has ended together with its turn."""
        held = self._held.pop(trigger_id)
        wake = await self._store.wake(trigger_id)
        attempt = None if wake is None else trigger.in_flight(wake)
        if wake is not None and wake.status not in trigger.OPEN:
            if attempt is not None and attempt.way is not Way.LIVE and place_of(attempt.holder) == place_of(self._holder):
                await self._turns.cancel(token_of(wake, attempt.number))
            if held.session_id:
                await self._store.leave_session(held.session_id, holder=self._holder)
        log(Event.WAKE_ENDED, f"the claim on {trigger_id} is ours no more", priority=Priority.NOTICE, trigger_id=trigger_id)

    def _ours(self, case: Case) -> _Held | None:
        """Return our claim when it holds for long enough to act under it."""
        held = self._held.get(_wake(case).trigger_id)
        return held if held is not None and self._boottime() < held.ends - _MARGIN else None

    async def _let_go(self, case: Case, write: Callable[[Claim], Awaitable[bool]]) -> bool:
        """Do the last thing under a claim."""
        held = self._held.get(_wake(case).trigger_id)
        if held is None:
            return False
        done = await write(held.claim)
        self._held.pop(_wake(case).trigger_id, None)
        if held.session_id:
            await self._store.leave_session(held.session_id, holder=self._holder)
        return done

    async def _defer(self, case: Case, step: act.Defer) -> None:
        held, now = self._ours(case), self._now()
        if held is None:
            return
        row = Attempt(
            number=trigger.next_number(_wake(case)),
            way=Way.LIVE,
            session_id=step.session.session_id,
            holder=self._holder,
            fence=held.claim.fence,
            began_at=now,
            cursor=case.cursor,
        )
        ended = replace(row, ended_at=now, outcome=Outcome.DEFERRED, code=step.code, detail="a person types there")
        if not (await self._store.begin(held.claim, row) and await self._store.end(held.claim, ended)):
            self._held.pop(held.claim.trigger_id, None)
            return
        await self._let_go(case, lambda claim: self._store.release(claim, due_at=step.due_at, deferred=True, code=step.code))
        self._look_again(step.due_at)
        self._did["deferred"] += 1
        self.counted.deferrals += 1
        self.counted.attempts[Outcome.DEFERRED] += 1
        self._tell(Event.WAKE_DEFERRED, case, f"{case.agent_id} is not prompted now: a person types there")

    async def _begin(self, case: Case, way: Way, number: int, session_id: str) -> Attempt | None:
        """Record that an attempt begins; None when it must not."""
        held = self._ours(case)
        if held is None or self.stopping.is_set():
            self._held.pop(_wake(case).trigger_id, None)
            return None
        attempt = Attempt(
            number=number,
            way=way,
            session_id=session_id,
            holder=self._holder,
            fence=held.claim.fence,
            began_at=self._now(),
            cursor=case.cursor,
        )
        if not await self._store.begin(held.claim, attempt):
            self._held.pop(held.claim.trigger_id, None)
            return None
        if not trigger.counted(_wake(case)):
            self.counted.latencies.append(waited(case, attempt.began_at))
        self._did["attempted"] += 1
        return attempt

    async def _prompt(self, case: Case, step: act.Deliver | act.Press) -> bool:
        wake, session = _wake(case), step.session
        text = await self._words.prompt(case, wake, Way.LIVE) if isinstance(step, act.Deliver) else ""
        attempt = await self._begin(case, Way.LIVE, step.number, session.session_id)
        if attempt is None:
            return False
        doing = "prompts" if text else "sends off the prompt to"
        self._tell(Event.WAKE_ATTEMPTED, case, f"attempt {step.number} {doing} {case.agent_id} in its terminal")
        try:
            terminal = await self.reach.terminal(session)
            if terminal is None:
                raise WakeFailed(Code.RUNTIME_SESSION_MISMATCH, f"{session.session_id} is no terminal of this host")
            if self._ours(case) is None:
                return False  # it took so long that another may be at it; the attempt stays without an end
            if isinstance(step, act.Deliver):
                await terminal.deliver(session, text)
            else:
                await terminal.press(session, wake.trigger_id)
        except WakeFailed as error:
            return await self._fail(case, attempt, error)
        return True

    async def _resume(self, case: Case, step: act.Resume) -> tuple[bool, frozenset[str]]:
        """Start a turn of a session, as the one who writes to it."""
        session_id = step.session.session_id
        if await self._store.hold_session(session_id, holder=self._holder, lease=self.limits.lease) is None:
            return True, frozenset({session_id})
        return await self._turn(case, Way.RESUME, step.number, session_id), frozenset()

    async def _turn(self, case: Case, way: Way, number: int, session_id: str = "") -> bool:
        wake = _wake(case)
        profile = self.reach.profile(case.workspace_id, case.agent_id)
        text = await self._words.prompt(case, wake, way)
        attempt = await self._begin(case, way, number, session_id)
        if attempt is None:
            return False
        held = self._held[wake.trigger_id]
        held.session_id = session_id
        what = f"resumes {case.agent_id}" if way is Way.RESUME else f"starts a new session of {case.agent_id}"
        self._tell(Event.WAKE_ATTEMPTED, case, f"attempt {number} {what}")
        try:
            if profile is None:
                raise WakeFailed(Code.RUNTIME_NOT_FOUND, f"this host has no [agents.{case.agent_id}]")
            turn = profile.runtime.turn(text, session_id=session_id)
            if self._ours(case) is None:
                return False
            await self._turns.begin(turn, token=token_of(wake, number), timeout=profile.means.turn_timeout)
        except WakeFailed as error:
            return await self._fail(case, attempt, error)
        return True

    async def _fail(self, case: Case, attempt: Attempt, error: WakeFailed) -> bool:
        ended = replace(attempt, ended_at=self._now(), outcome=Outcome.FAILED, code=error.code, detail=error.detail)
        return await self._finish(case, ended)

    async def _finish(self, case: Case, attempt: Attempt) -> bool:
        held = self._held.get(_wake(case).trigger_id)
        if held is None or not await self._store.end(held.claim, attempt):
            self._held.pop(_wake(case).trigger_id, None)
            return False
        if held.session_id:
            await self._store.leave_session(held.session_id, holder=self._holder)
            held.session_id = ""
        self._count_attempt(case, attempt)
        return True

    async def _settle(self, case: Case, step: act.Settle) -> bool:
        if step.attempt is not None and not await self._finish(case, step.attempt):
            return False

        def write(claim: Claim) -> Awaitable[bool]:
            return self._store.settle(
                claim, status=step.status, outcome=step.outcome, code=step.code, detail=step.detail, bounce=step.bounce
            )

        if await self._let_go(case, write):
            self._did["settled"] += 1
            self.counted.triggers[step.outcome] += 1
            priority = Priority.WARNING if step.outcome in (Outcome.DEAD_LETTERED, Outcome.FAILED) else Priority.NOTICE
            told = f"{step.outcome}{f', {step.code}' if step.code else ''}{f': {step.detail}' if step.detail else ''}"
            self._tell(Event.WAKE_ENDED, case, f"{case.agent_id}: {told}", priority, outcome=step.outcome, code=step.code)
        return False

    def _count_attempt(self, case: Case, attempt: Attempt) -> None:
        if attempt.outcome is None:
            return
        self._did["finished"] += 1
        self.counted.attempts[attempt.outcome] += 1
        told = f"attempt {attempt.number} for {case.agent_id}: {attempt.outcome}"
        told += f", {attempt.code}: {attempt.detail}" if attempt.code else ""
        failed = attempt.outcome is Outcome.FAILED
        self._tell(Event.WAKE_ENDED, case, told, Priority.WARNING if failed else Priority.INFO, code=attempt.code)

    def _keep_session(self, case: Case, attempt: Attempt) -> None:
        """Have the session renewed with the claim, also of a turn that a supervisor before us began."""
        held = self._held.get(_wake(case).trigger_id)
        if held is not None and attempt.way is Way.RESUME:
            held.session_id = attempt.session_id

    def _look_again(self, at: datetime | None) -> None:
        if at is not None:
            self._look_at = at if self._look_at is None else min(self._look_at, at)

    def _tell_collision(self, case: Case) -> None:
        self._tell(
            Event.WAKE_COLLIDED,
            case,
            f"somebody has typed at {case.agent_id} for too long, so another way is taken",
            Priority.WARNING,
        )

    def _tell(self, event: Event, case: Case, message: str, priority: Priority = Priority.INFO, **fields: object) -> None:
        wake = case.wake
        log(
            event,
            message,
            priority=priority,
            trigger_id=wake.trigger_id if wake else None,
            thread_id=case.thread_id,
            agent_id=case.agent_id,
            **fields,
        )

    def _report(self, passed: Passed) -> None:
        """Say how the pass went: each that did something, and once a minute that there is nothing to do."""
        now = self._boottime()
        counts: dict[str, Any] = {"cases": passed.cases, "failed": passed.failed or None, **passed.did}
        if passed.failed:
            self.counted.passes["failed"] += 1
            message = f"{passed.failed} of {passed.cases} cases could not be dealt with; the next pass tries again"
            log(Event.TICK_FAILED, message, priority=Priority.ERROR, **counts)
        elif passed.did:
            self.counted.passes["completed"] += 1
            told = ", ".join(f"{number} {what}" for what, number in passed.did.items())
            log(Event.TICK_COMPLETED, f"{passed.cases} cases: {told}", **counts)
        else:
            self.counted.passes["idle"] += 1
            if now - self._idle_told >= _QUIET:
                log(Event.TICK_IDLE, f"{passed.cases} cases, nothing to do", cases=passed.cases)
                self._idle_told = now
            return
        self._idle_told = -_QUIET


def name(node: str, place: str, *, pid: int) -> str:
    """Name a supervisor: the host and its state folder, then the process, so that no two are ever called the same.

    Args:
        node: host name. place: what tells this state folder from others, on whatever host.
    """
    return f"{node}.{hashlib.sha256(place.encode()).hexdigest()[:8]}:{pid}.{secrets.token_hex(3)}"


def place_of(holder: str) -> str:
    """Return the part of a supervisor's name that stays when another one takes its place on the same host."""
    return holder.rpartition(":")[0]


def token_of(wake: Wake, number: int) -> str:
    """Return the token of the turn of an attempt: the same for whoever looks for it."""
    return f"{wake.trigger_id}-{number}"


def waited(case: Case, now: datetime) -> float:
    """Return for how many seconds somebody has waited for the agent: since what it was not told of yet was said or asked."""
    wake = _wake(case)
    since = wake.created_at
    if trigger.of_unread(wake) and case.unread_since is not None:
        told = bool(case.attempted_at) and case.attempted_at[0] >= case.unread_since
        since = (case.unread_last_at or wake.created_at) if told else case.unread_since
    return max((now - since).total_seconds(), 0.0)


def _flight(case: Case) -> Attempt | None:
    return None if case.wake is None else trigger.in_flight(case.wake)


def _wake(case: Case) -> Wake:
    if case.wake is None:
        raise ValueError(f"{case.agent_id} in {case.thread_id} has no trigger")
    return case.wake
