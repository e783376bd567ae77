"""`loop_health`: everything that one look at Pulse shows, as one frozen document. Pure; `survey.py` reads the parts.

The page (static and served), `data/dashboard.json`, `/api/v1/health` and `klorosctl status` are views of this document and
work nothing out themselves. Instants are aware UTC, durations in seconds. The form on the wire is in
docs/reference/loop-health.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from orchestration.baseline.version import Change, Version
from orchestration.cycles.cycle import Cause as Asked
from orchestration.cycles.cycle import CycleState, JobName
from orchestration.pulse.health import Judgement, Mode
from orchestration.pulse.scope import Scope


class Beat(StrEnum):
    """What one minute of the heartbeat shows; where several things happened in a minute, the first named here counts."""

    PHASE = "phase"  # a tick started one
    DREAM_CYCLE = "dream_cycle"
    REFLECTION = "reflection"
    NOOP = "noop"
    FAILED = "failed"  # ticks started, and an error ended each
    LOCK_HELD = "lock_held"
    HALTED = "halted"
    DISABLED = "disabled"
    HOST_DOWN = "host_down"  # no tick, and the host was started again before the next
    UNKNOWN = "unknown"  # no tick although the host was up
    BEFORE = "before"  # no tick had ever been recorded


UNKNOWN = "unknown"
"""The state, and the job, of a bare folder that does not say."""
DECIDED = frozenset({Beat.PHASE, Beat.DREAM_CYCLE, Beat.REFLECTION, Beat.NOOP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Minutes in a row that show the same."""

    beat: Beat
    start: datetime  # a full minute
    minutes: int  # ≥ 1
    evidence: str  # of a gap: what explains it; empty for minutes in which a tick decided


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The ticks of a span by minute, oldest first; the stretches follow each other without a hole."""

    start: datetime
    minutes: int
    stretches: tuple[Stretch, ...]

    @property
    def gaps(self) -> tuple[Stretch, ...]:
        """The stretches in which no tick decided anything."""
        return tuple(one for one in self.stretches if one.beat not in DECIDED and one.beat is not Beat.BEFORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleLine:
    """One cycle, as lists show it."""

    cycle: int
    job: JobName | str  # a bare folder may name another
    state: CycleState | str  # a bare folder may not say: UNKNOWN
    cause: Asked | None
    phase_date: date | None
    queued_at: datetime | None
    started_at: datetime | None
    recorded_at: datetime | None  # when its end was recorded
    seconds: float | None  # from start to end; of an active one None
    timeout_seconds: float | None
    reason: str
    series: Mapping[str, float]  # last valid value of each telemetry series
    damaged_lines: int  # lines of its telemetry that could not be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A cycle that did not succeed, with the end of its output."""

    line: CycleLine
    tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Figures over many cycles. Rate, durations and means are those of the newest `over` finished cycles."""

    totals: Mapping[str, Mapping[str, int]]  # job → state → number of all that ever ended
    over: int
    success_rate: float | None  # 0 to 1; cancelled ones are not counted
    streak_state: CycleState | None  # how the newest finished cycle ended …
    streak: int  # … and how many in a row with it
    mean_seconds: float | None
    p95_seconds: float | None
    means: Mapping[str, float]  # of each series, over the cycles that have it


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseLine:
    """What became of one local date."""

    date: date
    result: str  # succeeded, failed, skipped
    reason: str
    evidence: str
    cycle: int | None
    opens: datetime
    closes: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What waits."""

    name: str  # promotions, intents, cycles, federation, escrow
    count: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A promotion that waits for a person."""

    stem: str
    failures: int
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A change of the baseline that waits in escrow for a person."""

    entry: str  # 12 hex digits
    subject: str  # what is to be taken in: a promotion's stem, or a rollback
    changes: tuple[Change, ...]  # against the baseline at that time
    rule: str  # what sent it here
    emitted_by: str  # empty: nobody knows
    cycle: int | None
    since: datetime
    expires: datetime | None  # None: never


UNDECIDED = "undecided"
"""Stands where a version has no verdict yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What the PHASE results said of one version of the baseline."""

    version: int
    verdict: str  # kept, neutral, rolled_back, escrowed, worse
    before: tuple[float, ...]  # PHASE results compared with, oldest first
    after: tuple[float, ...]  # under the version, oldest first
    change: float  # of the median; +0.02 for +2 %
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """The accepted parameters: the version in force, and what was last said of one."""

    version: Version
    verdict: str  # on it, or UNDECIDED
    results: int  # of PHASEs under it that can be compared so far, on each side …
    needed: int  # … and how many a verdict takes
    last: Tried | None  # the newest verdict, perhaps on an earlier version


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What the newest PHASE was advised, in short."""

    cycle: int
    phase_type: str
    rationale: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that waits after failures in a row."""

    job: str
    failures: int
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLine:
    """A PHASE window."""

    date: date
    opens: datetime
    closes: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TickLine:
    """One tick, as lists show it."""

    tick: int
    tick_id: str
    started_at: datetime
    decision: str
    exit_code: int
    cycle: int | None
    findings: tuple[tuple[str, str, str], ...]  # rule, reason, evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitedReader:
    """A participant that has not read what another said, in a thread that is open."""

    thread_id: str
    status: str
    agent_id: str  # who is waited for
    sender: str  # who waits
    since: datetime
    traceparent: str  # of the request that posted the message; empty when it had none


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantLine:
    """One participant of a thread: up to where it has read, and when its session last told that it lives."""

    agent_id: str
    last_read_seq: int
    unread: int
    heartbeat_at: datetime | None  # None: it never told
    session: str  # status of that session; empty when there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadLine:
    """One thread of the bridge."""

    thread_id: str
    workspace_id: str
    title: str
    status: str
    reason: str
    last_seq: int
    updated_at: datetime
    participants: tuple[ParticipantLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads:
    """How the threads of agents stood when the bridge last told."""

    told_at: datetime
    serving: bool  # by a server that goes on telling
    totals: Mapping[str, int]  # threads by status
    unread: Mapping[str, int]  # by how many messages cursors are behind, by status
    escalations: Mapping[str, int]  # threads ever blocked, by who did it
    behind: int  # participants of open threads
    waits: tuple[AwaitedReader, ...]  # the longest first
    lines: tuple[ThreadLine, ...]  # blocked ones first


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerLine:
    """One trigger: an agent that was to be woken, and what has come of it."""

    trigger_id: str
    thread_id: str
    agent_id: str
    status: str
    outcome: str  # empty while it is open
    code: str  # why it came to that; empty when it came to what it was for
    attempts: int
    deferrals: int
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wakes:
    """How the waking of agents stood when a supervisor of this host last told."""

    told_at: datetime
    serving: bool  # by one that goes on telling
    holder: str  # what the supervisor calls itself
    funnel: Mapping[str, int]  # how far the triggers of a day came
    open: int
    lines: tuple[TriggerLine, ...]  # open ones first, then the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopHealth:
    """How the loop stood at one instant."""

    generated_at: datetime
    host: str  # empty for a bare tree of cycles
    version: str  # of this program
    state_dir: str  # or the folder of the bare tree
    judgement: Judgement
    mode: Mode | None  # None for a bare tree
    last_tick: TickLine | None
    active: tuple[CycleLine, ...]  # oldest first
    time_zone: str  # IANA name, of the windows
    open_window: WindowLine | None
    next_window: WindowLine | None
    heartbeat: Heartbeat | None
    cycles: tuple[CycleLine, ...]  # newest first
    failures: tuple[Failure, ...]  # newest first
    summary: Summary
    phase_dates: tuple[PhaseLine, ...]  # newest first
    queues: tuple[Queue, ...]
    parked: tuple[Parked, ...]
    backoffs: tuple[Waiting, ...]
    escrow: tuple[Held, ...]  # oldest first; the queue of that name counts all
    baseline: Parameters | None  # None before the first version
    advice: Advice | None
    threads: Threads | None  # None: the bridge has told of none, or there is no bridge
    wakes: Wakes | None  # None: no supervisor has told
    damaged_lines: int  # of telemetry, in the cycles listed
    scope: Scope | None = None  # None: this host is alone
