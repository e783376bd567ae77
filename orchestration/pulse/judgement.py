"""The words of a judgement: verdict, condition, the signs it rests on, causes and rules. Pure; `health.py` has the table.

Imported by each quiet tick: keep it small (decision 0002).
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from orchestration.store.instants import to_text


class Verdict(StrEnum):
    """How the loop is, in one word, from good to bad; `unknown` where there is nothing to judge by."""

    OK = "ok"
    DEGRADED = "degraded"  # it works, and something wants a person's eye
    FAILING = "failing"  # it runs, and what it runs does not succeed
    STOPPED = "stopped"  # nothing is decided or run
    UNKNOWN = "unknown"


class Condition(StrEnum):
    """What can be wrong, by name: in documents, metrics, alerts and the names of runbooks."""

    NO_TICK_YET = "no_tick_yet"
    DISABLED = "disabled"
    HALTED = "halted"
    STORE_UNREACHABLE = "store_unreachable"
    HOST_DOUBLED = "host_doubled"
    TICK_STALE = "tick_stale"
    NOBODY_LEADS = "nobody_leads"
    LOOP_STOPPED = "loop_stopped"
    LOOP_SILENT = "loop_silent"
    TICK_FAILING = "tick_failing"
    PHASE_FAILING = "phase_failing"
    PHASE_MISSED = "phase_missed"
    DREAM_FAILING = "dream_failing"
    CYCLE_OVERDUE = "cycle_overdue"
    CYCLE_LOST = "cycle_lost"
    HOST_SILENT = "host_silent"
    CLOCK_OFFSET = "clock_offset"
    MAINTENANCE = "maintenance"
    LOCK_CONTENTION = "lock_contention"
    PHASE_DURATION = "phase_duration"
    PROMOTIONS_PARKED = "promotions_parked"
    PROMOTIONS_PILING_UP = "promotions_piling_up"
    ESCROW_WAITING = "escrow_waiting"
    BASELINE_ROLLED_BACK = "baseline_rolled_back"
    INTENTS_OVERFLOWING = "intents_overflowing"
    URGENT_ALERT = "urgent_alert"
    ARCHIVES_STALE = "archives_stale"
    FEDERATION_BEHIND = "federation_behind"
    BRIDGE_SILENT = "bridge_silent"
    THREADS_BLOCKED = "threads_blocked"
    MESSAGES_UNREAD = "messages_unread"
    SUPERVISOR_SILENT = "supervisor_silent"
    WAKES_DEAD_LETTERED = "wakes_dead_lettered"
    WAKES_WAITING = "wakes_waiting"
    AGENTS_UNMANAGED = "agents_unmanaged"
    PROMPTS_COLLIDED = "prompts_collided"
    DISK_LOW = "disk_low"


class Mode(StrEnum):
    """Whether ticks may act, as settings and switches say."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    HALTED = "halted"
    MAINTENANCE = "maintenance"


class BridgeSigns(NamedTuple):
    """How the threads of agents stand, as the bridge told last."""

    told_at: datetime
    serving: bool  # by a server that goes on telling
    blocked: int  # threads that wait for a person
    blocked_since: datetime | None  # of the one that has longest
    blocked_thread: str | None
    behind: int  # participants of active threads that have not read what another said
    unread_since: datetime | None  # of what has waited longest
    unread_by: str | None
    unread_thread: str | None


class WakeSigns(NamedTuple):
    """How the waking of agents stands, as a supervisor told last."""

    told_at: datetime
    serving: bool  # by one that goes on telling
    dead: int  # triggers that were given up, and nobody has looked at since
    dead_since: datetime | None  # of the one that has been so longest
    dead_trigger: str | None
    waiting: int  # open triggers
    waiting_since: datetime | None  # of the oldest
    waiting_agent: str | None
    unmanaged: int  # of those given up: for want of a runtime that we may use
    unmanaged_since: datetime | None
    unmanaged_agent: str | None
    collided: int  # prompts that were put off until the end because a person typed, within COLLIDED_WITHIN
    collided_since: datetime | None
    collided_agent: str | None


class Signs(NamedTuple):
    """What a judgement rests on: aware UTC instants, seconds, bytes. None: there is none, or it is not known."""

    now: datetime
    last_tick_at: datetime | None  # when a tick last decided anything
    last_attempt_at: datetime | None  # when a tick last came as far as the store
    tick_exits: tuple[int, ...]  # exit codes of the newest ticks, newest first
    contentions: int  # ticks that the lock turned away within CONTENTION_WITHIN
    iteration_at: datetime | None  # when the loop last was to do something: end of the last iteration, or its next run
    loop_failure_limit: bool  # the loop has given up
    archives_stale: bool
    active_cycle: int | None
    active_deadline: datetime | None  # of the running cycle
    phase_date: str | None  # newest local date accounted for
    phase_result: str | None  # of that date
    phase_reason: str | None
    phase_ends: tuple[str, ...]  # states of the newest ended PHASE cycles, newest first
    phase_seconds: tuple[float, ...]  # wall time of the newest succeeded PHASEs, newest first
    dream_ends: tuple[str, ...]  # states of the newest D-REAM cycles that ended within DREAM_WITHIN, newest first
    lost: int  # cycles lost within LOST_WITHIN
    promotions_unacked: int
    promotions_parked: int
    escrow_pending: int
    escrow_since: datetime | None  # when the oldest entry that waits for a person was held
    escrow_expires: datetime | None  # when the next of them expires
    rolled_back: tuple[int, datetime, str] | None  # version that was rolled back within ROLLED_BACK_WITHIN, when, why
    intents_pending: int
    intents_max: int
    intents_dropped: int  # because the queue was full, within OVERFLOW_WITHIN
    urgent: tuple[str, ...]  # types of the newest alerts of priority 8 or more within URGENT_WITHIN, newest first
    federation_since: datetime | None  # when the oldest bundle that is not copied yet was to be
    bridge: BridgeSigns | None  # None: nobody ever told of a thread
    wake: WakeSigns | None  # None: no supervisor ever told
    disk_free: int | None  # where the state folder lies
    disk_low_below: int  # bytes, as set
    switches: tuple[Mode, ...] = ()  # what settings and files set against ticks; the first says the mode
    refused: tuple[Condition, str] | None = None  # why no tick of this host can use the store, where that is so
    scope: tuple[tuple[Condition, datetime | None, str], ...] = ()  # what a scope of several hosts shows, since when
    elsewhere: bool = False  # another host of the scope tells what concerns all of it

    @property
    def mode(self) -> Mode:
        """Whether ticks may act, in one word."""
        return self.switches[0] if self.switches else Mode.ENABLED


class Cause(NamedTuple):
    """One reason for a verdict."""

    condition: Condition
    verdict: Verdict
    since: datetime  # aware UTC; when it began, or where nobody can know that, when a look first found it
    evidence: str
    advice: str  # what to type


class Judgement(NamedTuple):
    """The verdict, its causes in order of precedence, and every condition that holds, also one too young to count."""

    verdict: Verdict
    causes: tuple[Cause, ...]
    holding: tuple[tuple[Condition, datetime, str], ...]  # condition, since, evidence


class Rule(NamedTuple):
    """When a condition holds, and what it means."""

    condition: Condition
    verdict: Verdict
    evidence: Callable[[Signs], str]  # empty: it does not hold
    advice: str
    after: timedelta = timedelta(0)  # it counts once it has held this long
    began: Callable[[Signs], datetime | None] = lambda _: None  # when it did, where the signs say so


def as_json(judgement: Judgement) -> dict[str, object]:
    """Write a judgement as it stands in `latest.json`, `data/dashboard.json` and every `--json`."""
    return {"verdict": judgement.verdict, "causes": [_cause(cause) for cause in judgement.causes]}


def _cause(cause: Cause) -> dict[str, object]:
    return {**cause._asdict(), "since": to_text(cause.since)}


_FROM_GOOD_TO_BAD = tuple(Verdict)


def worst(causes: list[Cause]) -> Verdict:
    """Return the verdict that the worst of these causes gives."""
    return max((cause.verdict for cause in causes), key=_FROM_GOOD_TO_BAD.index, default=Verdict.OK)


def span(span: timedelta) -> str:
    """Write a duration to a minute: `3 min`, `2 h 5 min`, `4 d 1 h`."""
    minutes = int(span.total_seconds() // 60)
    days, hours = minutes // 1440, minutes % 1440 // 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
