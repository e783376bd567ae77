"""Carries out the step that the rules chose for a case, under the claim that it needs.

Three things keep a prompt from being given twice:
- an attempt is recorded under the claim's fence before it is made, and what has begun is never begun again: of an attempt
  without an end only its acknowledgement, or its turn's cycle, is looked for;
- a turn is queued under a token made of trigger and number, which a host's store takes once;
- nothing is put in or started when the claim has less than a moment left (`claims.py`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Final, assert_never

from orchestration.bridge.wake import action as act
from orchestration.bridge.wake import observation, trigger
from orchestration.bridge.wake.claims import Claims
from orchestration.bridge.wake.limits import Limits
from orchestration.bridge.wake.looking import Looking
from orchestration.bridge.wake.port import WakeFailed, WakeStore
from orchestration.bridge.wake.reach import Reach, TurnsOfHost, Words, token_of
from orchestration.bridge.wake.state import Attempt, Case, Claim, Code, Outcome, Wake, Way
from orchestration.bridge.wake.telling import Counted
from orchestration.host.journal import Event, Priority, log

_NOTHING: Final[frozenset[str]] = frozenset()


class Steps:
    """Every step that there is."""

    def __init__(
        self,
        store: WakeStore,
        reach: Reach,
        turns: TurnsOfHost,
        words: Words,
        claims: Claims,
        *,
        limits: Limits,
        holder: str,
        now: Callable[[], datetime],
        stopping: asyncio.Event,
    ) -> None:
        """Take what it works with; once `stopping` is set, nothing is begun."""
        self.did: Counter[str] = Counter()
        """What was done in this pass, by name."""
        self.counted = Counted()
        self.look_at: datetime | None = None
        """When something is due next, of what this pass has seen."""
        self._store = store
        self._reach = reach
        self._turns = turns
        self._words = words
        self._claims = claims
        self._holder = holder
        self._now = now
        self._stopping = stopping
        self._cycles: dict[tuple[int, str], int] = {}
        self._looking = Looking(reach, turns, here=holder, limits=limits, now=now)

    def look_again(self, at: datetime | None) -> None:
        """Have a pass follow by then."""
        if at is not None:
            self.look_at = at if self.look_at is None else min(self.look_at, at)

    async def look(self, case: Case, held: frozenset[str]) -> observation.Seen:
        """Observe one case. `held`: sessions that somebody else was found to write to."""
        case = self._claims.seen(case, self._now())
        found = await self._looking.look(case, holder=self._holder, held=held)
        attempt = trigger.in_flight(case.wake) if case.wake else None
        if found.cycle is not None and attempt is not None:
            self._cycles[attempt.number, _wake(case).trigger_id] = found.cycle
        return found.seen

    async def carry_out(self, case: Case, decision: act.Decision) -> tuple[bool, frozenset[str]]:
        """Do a step.

        Returns:
            Whether to go on with what it changed; and the session that somebody else was found to write to.
        """
        step = decision.action
        match step:
            case act.Rest(until=until) | act.AwaitAck(until=until):
                self.look_again(until)
                return False, _NOTHING
            case act.AwaitTurn(attempt=attempt, until=until):
                self.look_again(until)
                if attempt.way is Way.RESUME:  # also of a turn that a supervisor before us began
                    self._claims.keep_session(_wake(case), attempt.session_id)
                return False, _NOTHING
            case act.Queue():
                return await self._queue(case, step), _NOTHING
            case act.Claim():
                return await self._claim(_wake(case)), _NOTHING
            case act.Release(due_at=due_at, code=code):
                return await self._release(case, due_at, code), _NOTHING
            case act.Defer():
                return await self._defer(case, step), _NOTHING
            case act.Deliver() | act.Press():
                return await self._prompt(case, step), _NOTHING
            case act.Resume():
                return await self._resume(case, step)
            case act.Spawn():
                return await self._turn(case, Way.SPAWN, step.number), _NOTHING
            case act.Finish(attempt=attempt):
                return await self._finish(case, attempt), _NOTHING
            case act.Settle():
                return await self._settle(case, step), _NOTHING
            case _:
                assert_never(step)

    async def _queue(self, case: Case, step: act.Queue) -> bool:
        now = self._now()
        wake = Wake(
            trigger_id=f"trg_{int(now.timestamp() * 1000):012x}{secrets.token_hex(10)}",
            workspace_id=case.workspace_id,
            thread_id=case.thread_id,
            agent_id=case.agent_id,
            reason=step.reason,
            prompt="",
            requested_by=trigger.SUPERVISOR,
            created_at=now,
            due_at=now,
            renewed_at=now if step.anew else None,
        )
        self.did["queued"] += await self._store.queue(wake)
        return True

    async def _claim(self, wake: Wake) -> bool:
        taken = await self._claims.take(wake)
        self.did["claimed"] += taken
        return taken

    async def _release(self, case: Case, due_at: datetime, code: Code | None) -> bool:
        self.look_again(due_at)
        await self._claims.let_go(_wake(case), lambda claim: self._store.release(claim, due_at=due_at, code=code))
        self.did["released"] += 1
        return False

    async def _defer(self, case: Case, step: act.Defer) -> bool:
        wake, now = _wake(case), self._now()
        claim = self._claims.of(wake)
        if claim is None:
            return False
        number = trigger.next_number(wake)
        row = self._attempt(case, claim, Way.LIVE, number, step.session.session_id)
        collided = step.code is Code.DEFER_TIMEOUT
        told = "a person went on typing there" if collided else "a person types there"
        ended = replace(row, ended_at=now, outcome=Outcome.DEFERRED, code=step.code, detail=told)
        if not await self._store.begin(claim, ended):  # begun and ended at once: nobody has to see to its end
            self._claims.forget(wake)
            return False

        def write(claim: Claim) -> Awaitable[bool]:
            return self._store.release(claim, due_at=step.due_at, deferred=True, code=step.code)

        await self._claims.let_go(wake, write)
        self.look_again(step.due_at)
        self.did["deferred"] += 1
        self.counted.deferrals += not collided
        self.counted.attempts[Outcome.DEFERRED] += 1
        if collided:
            _tell(Event.WAKE_COLLIDED, case, f"{case.agent_id} is woken another way: {told}", Priority.WARNING)
        else:
            _tell(Event.WAKE_DEFERRED, case, f"{case.agent_id} is not prompted now: {told}")
        return False

    def _attempt(self, case: Case, claim: Claim, way: Way, number: int, session_id: str) -> Attempt:
        return Attempt(
            number=number,
            way=way,
            session_id=session_id,
            holder=self._holder,
            fence=claim.fence,
            began_at=self._now(),
            cursor=case.cursor,
        )

    async def _begin(self, case: Case, way: Way, number: int, session_id: str = "") -> Attempt | None:
        """Record that an attempt begins; None when it must not."""
        wake = _wake(case)
        claim = self._claims.to_act(wake)
        if claim is None or self._stopping.is_set():
            return None
        attempt = self._attempt(case, claim, way, number, session_id)
        if not await self._store.begin(claim, attempt):
            self._claims.forget(wake)
            return None
        if not trigger.counted(wake):
            self.counted.latencies.append(waited(case, attempt.began_at))
        self.did["attempted"] += 1
        return attempt

    async def _prompt(self, case: Case, step: act.Deliver | act.Press) -> bool:
        wake, session = _wake(case), step.session
        text = await self._words.prompt(case, wake, Way.LIVE) if isinstance(step, act.Deliver) else ""
        attempt = await self._begin(case, Way.LIVE, step.number, session.session_id)
        if attempt is None:
            return False
        doing = "prompts" if text else "sends off the prompt to"
        _tell(Event.WAKE_ATTEMPTED, case, f"attempt {step.number} {doing} {case.agent_id} in its terminal")
        try:
            terminal = await self._reach.terminal(session)
            if terminal is None:
                raise WakeFailed(Code.RUNTIME_SESSION_MISMATCH, f"{session.session_id} is no terminal of this host")
            if self._claims.to_act(wake) is None:
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
        if not await self._claims.hold_session(session_id):
            return True, frozenset({session_id})
        self._claims.keep_session(_wake(case), session_id)
        return await self._turn(case, Way.RESUME, step.number, session_id), _NOTHING

    async def _turn(self, case: Case, way: Way, number: int, session_id: str = "") -> bool:
        wake = _wake(case)
        profile = self._reach.profile(case.workspace_id, case.agent_id)
        text = await self._words.prompt(case, wake, way)
        attempt = await self._begin(case, way, number, session_id)
        if attempt is None:
            return False
        what = f"resumes {case.agent_id}" if way is Way.RESUME else f"starts a new session of {case.agent_id}"
        _tell(Event.WAKE_ATTEMPTED, case, f"attempt {number} {what}")
        try:
            if profile is None:
                raise WakeFailed(Code.RUNTIME_NOT_FOUND, f"this host has no [agents.{case.agent_id}]")
            turn = profile.runtime.turn(text, session_id=session_id)
            if (claim := self._claims.to_act(wake)) is None:
                return False
            cycle = await self._turns.begin(turn, profile, token=token_of(wake, number), claim=claim)
        except WakeFailed as error:
            return await self._fail(case, attempt, error)
        if (claim := self._claims.of(wake)) is not None:  # so that an operator can see what it prints
            await self._store.begin(claim, replace(attempt, cycle=cycle))
        return True

    async def _fail(self, case: Case, attempt: Attempt, error: WakeFailed) -> bool:
        ended = replace(attempt, ended_at=self._now(), outcome=Outcome.FAILED, code=error.code, detail=error.detail)
        return await self._finish(case, ended)

    async def _finish(self, case: Case, attempt: Attempt) -> bool:
        wake = _wake(case)
        claim = self._claims.of(wake)
        cycle = self._cycles.pop((attempt.number, wake.trigger_id), None)
        if claim is None or not await self._store.end(claim, replace(attempt, cycle=attempt.cycle or cycle)):
            self._claims.forget(wake)
            return False
        await self._claims.leave_session(wake)
        self._count(case, attempt)
        return True

    async def _settle(self, case: Case, step: act.Settle) -> bool:
        if step.attempt is not None and not await self._finish(case, step.attempt):
            return False

        def write(claim: Claim) -> Awaitable[bool]:
            return self._store.settle(
                claim,
                status=step.status,
                outcome=step.outcome,
                code=step.code,
                detail=step.detail,
                bounce=step.bounce,
                words=step.words,
            )

        if await self._claims.let_go(_wake(case), write):
            self.did["settled"] += 1
            self.counted.triggers[step.outcome] += 1
            told = f"{step.outcome}{f', {step.code}' if step.code else ''}{f': {step.detail}' if step.detail else ''}"
            bad = step.outcome in (Outcome.DEAD_LETTERED, Outcome.FAILED)
            priority = Priority.WARNING if bad else Priority.NOTICE
            _tell(Event.WAKE_ENDED, case, f"{case.agent_id}: {told}", priority, outcome=step.outcome, code=step.code)
        return False

    def _count(self, case: Case, attempt: Attempt) -> None:
        if attempt.outcome is None:
            return
        self.did["finished"] += 1
        self.counted.attempts[attempt.outcome] += 1
        told = f"attempt {attempt.number} for {case.agent_id}: {attempt.outcome}"
        told += f", {attempt.code}: {attempt.detail}" if attempt.code else ""
        priority = Priority.WARNING if attempt.outcome is Outcome.FAILED else Priority.INFO
        _tell(Event.WAKE_ENDED, case, told, priority, outcome=attempt.outcome, code=attempt.code)


def waited(case: Case, now: datetime) -> float:
    """Return for how many seconds somebody has waited for the agent: since what it was not told of yet was said or asked."""
    wake = _wake(case)
    since = wake.created_at
    if trigger.of_unread(wake) and case.unread_since is not None:
        told = bool(case.attempted_at) and case.attempted_at[0] >= case.unread_since
        since = (case.unread_last_at or since) if told else case.unread_since
    return max((now - since).total_seconds(), 0.0)


def _wake(case: Case) -> Wake:
    if case.wake is None:
        raise ValueError(f"{case.agent_id} in {case.thread_id} has no trigger")
    return case.wake


def _tell(event: Event, case: Case, message: str, priority: Priority = Priority.INFO, **fields: object) -> None:
    trigger_id = case.wake.trigger_id if case.wake else None
    names = {"trigger_id": trigger_id, "thread_id": case.thread_id, "agent_id": case.agent_id}
    log(event, message, priority=priority, **names, **fields)
