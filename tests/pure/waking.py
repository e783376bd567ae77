"""Cases of waking for tests: builders with the common values, and a course that carries decisions out as a driver does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestration.bridge.state import Session
from orchestration.bridge.wake import action as act
from orchestration.bridge.wake import trigger
from orchestration.bridge.wake.action import Decision
from orchestration.bridge.wake.limits import Limits, Means
from orchestration.bridge.wake.observation import Seen, Turn, Turned, is_fresh, is_managed
from orchestration.bridge.wake.policy import decide
from orchestration.bridge.wake.port import Liveness, Probe
from orchestration.bridge.wake.state import Attempt, Case, Outcome, Status, Wake, Way
from orchestration.bridge.wire import ManagementMode, SessionStatus, ThreadStatus

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
ME, OTHER = "one/17", "two/4711"
LIMITS = Limits()
THREAD = "thr_0f0e0d0c0b0a09080706050403020100"
TRIGGER = "trg_0f0e0d0c0b0a09080706050403020100"
PANE, PAST = "tmux:1:%3", "0199a213-81c0-7800-8aa1-bbab2a035a53"


def ago(seconds: float) -> datetime:
    return NOW - seconds * SECOND


def session(session_id: str = PANE, **changes: Any) -> Session:
    """A managed session that beat just now."""
    values: dict[str, Any] = {
        "workspace_id": "kloros",
        "agent_id": "reviewer",
        "session_id": session_id,
        "runtime": "codex",
        "management_mode": ManagementMode.MANAGED,
        "resumable": False,
        "status": SessionStatus.IDLE,
        "heartbeat_at": ago(5),
    }
    return Session(**{**values, **changes})


def past(session_id: str = PAST, **changes: Any) -> Session:
    """An unmanaged session that can be resumed and was heard an hour ago."""
    values: dict[str, Any] = {
        "management_mode": ManagementMode.UNMANAGED,
        "resumable": True,
        "status": SessionStatus.OFFLINE,
        "heartbeat_at": NOW - HOUR,
    }
    return session(session_id, **{**values, **changes})


def wake(**changes: Any) -> Wake:
    """A trigger made of unread messages ten seconds ago, and claimed by us."""
    values: dict[str, Any] = {
        "trigger_id": TRIGGER,
        "workspace_id": "kloros",
        "thread_id": THREAD,
        "agent_id": "reviewer",
        "reason": "1 message unread",
        "prompt": "",
        "requested_by": trigger.SUPERVISOR,
        "status": Status.CLAIMED,
        "created_at": ago(10),
        "due_at": ago(10),
        "holder": ME,
        "fence": 1,
        "lease_until": NOW + 30 * SECOND,
    }
    return Wake(**{**values, **changes})


def ended(**changes: Any) -> Wake:
    """One that has ended a minute ago, well unless it is changed."""
    values: dict[str, Any] = {
        "status": Status.DONE,
        "outcome": Outcome.TRIGGERED,
        "created_at": ago(70),
        "ended_at": ago(60),
        "lease_until": None,
    }
    return wake(**{**values, **changes})


def attempt(number: int = 1, way: Way = Way.LIVE, **changes: Any) -> Attempt:
    """One in flight, begun four seconds ago in the pane."""
    values: dict[str, Any] = {
        "number": number,
        "way": way,
        "session_id": {Way.LIVE: PANE, Way.RESUME: PAST}.get(way, ""),
        "holder": ME,
        "fence": 1,
        "began_at": ago(4),
        "cursor": 3,
    }
    return Attempt(**{**values, **changes})


def failed(number: int = 1, way: Way = Way.LIVE, **changes: Any) -> Attempt:
    """One that has failed."""
    values: dict[str, Any] = {"outcome": Outcome.FAILED, "began_at": ago(20), "ended_at": ago(12)}
    return attempt(number, way, **{**values, **changes})


def case(**changes: Any) -> Case:
    """One unread message for the reviewer, and nothing else."""
    values: dict[str, Any] = {
        "workspace_id": "kloros",
        "thread_id": THREAD,
        "thread_status": ThreadStatus.ACTIVE,
        "agent_id": "reviewer",
        "cursor": 3,
        "last_seq": 4,
        "unread": 1,
        "unread_since": ago(11),
        "unread_last": 4,
        "unread_last_at": ago(11),
    }
    return Case(**{**values, **changes})


def seen(one: Case, **changes: Any) -> Seen:
    """It, through our eyes, on a host that has every way; every terminal lives and nobody types."""
    fresh = [each for each in one.sessions if is_managed(each) and is_fresh(each, LIMITS, NOW)]
    values: dict[str, Any] = {
        "case": one,
        "holder": ME,
        "now": NOW,
        "means": Means(),
        "probes": {each.session_id: Probe(liveness=Liveness.LIVE) for each in fresh},
    }
    return Seen(**{**values, **changes})


def chosen(one: Case, limits: Limits = LIMITS, **changes: Any) -> Decision:
    """What is decided about it."""
    return decide(seen(one, **changes), limits)


@dataclass
class World:
    """What answers a driver in a course: how a terminal is found, whether it acknowledges, how turns end."""

    probe: Callable[[datetime], Probe] = lambda _now: Probe(liveness=Liveness.LIVE)
    acknowledges: bool = False
    turn: Turned = Turned.FAILED
    beats: bool = True


@dataclass
class Course:
    """A case that is decided on again and again; each decision is carried out as the store would have it afterwards."""

    case: Case
    world: World = field(default_factory=World)
    limits: Limits = LIMITS
    means: Means | None = field(default_factory=Means)
    now: datetime = NOW
    decisions: list[Decision] = field(default_factory=list)

    def step(self) -> Decision:
        """Decide once, and act; time goes on to when it is worth a look again."""
        if self.world.beats:
            beaten = (replace(one, heartbeat_at=self.now) if is_managed(one) else one for one in self.case.sessions)
            self.case = replace(self.case, sessions=tuple(beaten))
        probes = {one.session_id: self.world.probe(self.now) for one in self.case.sessions if is_managed(one)}
        turn = Turn(turned=self.world.turn)
        look = Seen(case=self.case, holder=ME, now=self.now, means=self.means, probes=probes, turn=turn)
        decision = decide(look, self.limits)
        self.decisions.append(decision)
        self._act(decision.action)
        return decision

    def until_settled(self, most: int = 200) -> Decision:
        """Go on to the end of the trigger."""
        for _ in range(most):
            if isinstance(self.step().action, act.Settle):
                return self.decisions[-1]
        raise AssertionError(f"no end after {most} steps: {self.decisions[-1]}")

    def _act(self, action: act.Action) -> None:
        match action:
            case act.Rest(until=until):
                self.now = max(until or self.now, self.now) + self.limits.interval
            case act.Queue(reason=reason):
                fresh = wake(reason=reason, status=Status.QUEUED, holder="", created_at=self.now, due_at=self.now)
                self.case = replace(self.case, wake=replace(fresh, lease_until=None))
            case act.Claim():
                self._change(status=Status.CLAIMED, holder=ME, lease_until=self.now + 1000 * HOUR)
            case act.Release(due_at=due, code=code):
                self._change(status=Status.QUEUED, due_at=due, code=code, holder="")
                self.now = max(self.now, due)
            case act.Defer(due_at=due, session=one, code=code):
                row = attempt(trigger.next_number(self._wake), session_id=one.session_id, began_at=self.now, code=code)
                row = replace(row, outcome=Outcome.DEFERRED, ended_at=self.now)
                first = self._wake.deferred_at or self.now
                self._change(attempts=(*self._wake.attempts, row))
                self._change(status=Status.QUEUED, due_at=due, deferred_at=first, deferrals=self._wake.deferrals + 1)
                self.now = max(self.now, due)
            case act.Deliver(session=one, number=number) | act.Press(session=one, number=number):
                self._begin(number, Way.LIVE, one.session_id)
            case act.Resume(session=one, number=number):
                self._begin(number, Way.RESUME, one.session_id)
            case act.Spawn(number=number):
                self._begin(number, Way.SPAWN, "")
            case act.AwaitAck(until=until):
                self.now = until
                if self.world.acknowledges:
                    self.case = replace(self.case, cursor=self.case.cursor + 1)
            case act.AwaitTurn(until=until):
                self.now = until
            case act.Finish(attempt=done):
                self._end(done)
            case act.Settle(attempt=done):
                if done:
                    self._end(done)
                self._change(status=action.status, outcome=action.outcome, code=action.code, ended_at=self.now)

    @property
    def _wake(self) -> Wake:
        assert self.case.wake is not None
        return self.case.wake

    def _change(self, **changes: Any) -> None:
        self.case = replace(self.case, wake=replace(self._wake, **changes))

    def _begin(self, number: int, way: Way, session_id: str) -> None:
        row = attempt(number, way, session_id=session_id, began_at=self.now, cursor=self.case.cursor)
        self._change(attempts=(*self._wake.attempts, row))
        self.case = replace(self.case, attempted_at=(self.now, *self.case.attempted_at)[:20])

    def _end(self, done: Attempt) -> None:
        rows = tuple(done if one.number == done.number else one for one in self._wake.attempts)
        self._change(attempts=rows)
        if done.outcome is Outcome.FAILED and done.way is not Way.LIVE:
            self.case = replace(self.case, failed_at=(self.now, *self.case.failed_at)[:20])
