"""A Cycle: one numbered run of a Job, its lifecycle as a table, and what is known of its end.

Pure. Refuses to know how a command is run or where a cycle is kept.

    queued ──claim──► running ──succeed/fail/time_out/cancel/lose──► (terminal)
    queued ──cancel──► cancelled

That a tick has applied a finished cycle's consequences is a separate fact (`settled_at`), not a state.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, NewType

CycleNumber = NewType("CycleNumber", int)


class JobName(StrEnum):
    """The jobs there are; each is exclusive of every other, but for WAKE, which has a lane of its own."""

    PHASE = "phase"
    DREAM = "dream"
    LOOP = "loop"
    REFLECTION = "reflection"
    WAKE = "wake"  # one turn of an agent: beside the others, settled at its end, no matter of the ticks


class Executor(StrEnum):
    """Who runs a cycle's command."""

    LOCAL = "local"
    SLURM = "slurm"


class CycleState(StrEnum):
    """Where a cycle stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"


class CycleEvent(StrEnum):
    """What can happen to a cycle."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    FAIL = "fail"
    TIME_OUT = "time_out"
    CANCEL = "cancel"
    LOSE = "lose"


TRANSITIONS: Mapping[tuple[CycleState, CycleEvent], CycleState] = MappingProxyType(
    {
        (CycleState.QUEUED, CycleEvent.CLAIM): CycleState.RUNNING,
        (CycleState.QUEUED, CycleEvent.CANCEL): CycleState.CANCELLED,
        (CycleState.RUNNING, CycleEvent.SUCCEED): CycleState.SUCCEEDED,
        (CycleState.RUNNING, CycleEvent.FAIL): CycleState.FAILED,
        (CycleState.RUNNING, CycleEvent.TIME_OUT): CycleState.TIMED_OUT,
        (CycleState.RUNNING, CycleEvent.CANCEL): CycleState.CANCELLED,
        (CycleState.RUNNING, CycleEvent.LOSE): CycleState.LOST,
    }
)

ACTIVE = frozenset({CycleState.QUEUED, CycleState.RUNNING})
FINISHED = frozenset(CycleState) - ACTIVE


def after(state: CycleState, event: CycleEvent) -> CycleState | None:
    """Return the state that follows, or None when the event can't happen in this state."""
    return TRANSITIONS.get((state, event))


class Packed(StrEnum):
    """What came of one attempt to make a finished cycle's bundle."""

    MADE = "made"
    FAILED = "failed"  # tried again later
    SKIPPED = "skipped"  # the cycle left no folder


class Federated(StrEnum):
    """What came of one attempt to copy a finished cycle's bundle to the canonical place."""

    SENT = "sent"  # it is there, verified, and in the index
    FAILED = "failed"  # a later tick tries again
    SKIPPED = "skipped"  # the cycle left nothing to copy


class Cause(StrEnum):
    """What asked for a cycle."""

    WINDOW = "window"
    MISSED_WINDOW = "missed_window"
    PROMOTIONS = "promotions"
    INTENT = "intent"
    LOOP = "loop"  # an iteration of the continuous loop
    DIRECT = "direct"  # a person or a script, by `run_cycle --cycle`
    WAKE = "wake"  # a trigger of the bridge


class Origin(NamedTuple):
    """Why a cycle was started, so that anyone can ask later."""

    cause: Cause
    tick_id: str
    promotions: tuple[str, ...] = ()  # stems, in the order given to the command
    topic: str = ""
    intent: str = ""  # file name of the intent
    variables: tuple[tuple[str, str], ...] = ()  # LOOP, WAKE: what its command gets besides, name and value
    resumes: bool = False  # goes on with the artifacts of an earlier run of this number
    prompt: str = ""  # WAKE, until it has ended: what the agent is told, see PROMPT
    session: str = ""  # WAKE: the runtime's session that the turn goes on with, whose one writer it has to be

    def told(self) -> dict[str, object]:
        """Return it for people: without what an agent is told, which is a matter of its thread."""
        fields = self._asdict()
        del fields["prompt"]
        return fields if self.cause is not Cause.WAKE else {**fields, "variables": ()}


PROMPT = "{prompt}"
"""A word of a WAKE cycle's command that is the prompt; where there is none, the prompt is standard input."""


class Result(NamedTuple):
    """How a cycle ended. What was not measured is None; wall and CPU in seconds, memory in bytes."""

    reason: str
    exit_code: int | None = None
    signal: str | None = None
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    output_truncated: bool = False
    epoch: str | None = None  # PHASE only
    report: str | None = None  # absolute path of what the command left to be read: a PHASE's report, D-REAM's verdicts
    report_sha: str | None = None  # its SHA-256 when the cycle ended, hexadecimal
    not_started: bool = False  # the command could not be executed at all


class Cycle(NamedTuple):
    """One row of the store; every instant is aware UTC."""

    cycle: CycleNumber
    job: JobName
    state: CycleState
    token: str
    origin: Origin
    command: tuple[str, ...]
    working_dir: str  # "" for the cycle's own folder
    timeout: timedelta
    phase_date: date | None
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    settled_at: datetime | None
    cancel_asked_at: datetime | None
    runner: str | None
    result: Result | None
    executor: Executor = Executor.LOCAL
    hosts: tuple[str, ...] = ()  # of those that share a store: which may run it; none: any
    host: str = ""  # which one took it; "" until then, and always where a host is alone


def end_of(cycle: Cycle) -> datetime:
    """Return when a finished cycle ended.

    Raises:
        ValueError: it has no end yet.
    """
    if cycle.ended_at is None:
        raise ValueError(f"cycle {cycle.cycle} is {cycle.state} and has no end")
    return cycle.ended_at


def folder_name(cycle: CycleNumber) -> str:
    """Return the cycle's folder under `cycles/`: `cycle_00042`."""
    return f"cycle_{cycle:05d}"
