"""What the pages beside the first one show: lists, one cycle, one tick, promotions, intents, the calendar of PHASEs.

Pure, and worked out nowhere else; `records` reads them. Instants are aware UTC, durations in seconds, sizes in bytes.
Every text may come from outside (reasons, topics, names, logs): whoever shows it escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestration.cycles.cycle import CycleState, JobName
from orchestration.pulse.loop_health import CycleLine, PhaseLine, TickLine, WindowLine

MOST_LINES = 500
"""Lines of one page of a list."""
MOST_POINTS = 500
"""Points of one telemetry series; a longer one is thinned out."""
MOST_ROWS = 1000
"""Files, promotions and intents of one page."""
LONGEST_TEXT = 200
"""Characters to search for."""


class CycleOrder(StrEnum):
    """How a list of cycles is sorted."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LONGEST = "longest"  # only those of which it is known how long they took
    SHORTEST = "shortest"  # the same


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleQuery:
    """Which cycles are asked for, and from where on."""

    job: JobName | None = None
    state: CycleState | None = None
    text: str = ""  # in the number, reason, topic, intent or promotions; case does not matter
    order: CycleOrder = CycleOrder.NEWEST
    cursor: str = ""  # `next_cursor` of the page before, for the same query; empty: from the start
    limit: int = 50  # 1 to MOST_LINES


@dataclass(frozen=True, slots=True, kw_only=True)
class CyclePage:
    """One page of a list of cycles."""

    query: CycleQuery
    lines: tuple[CycleLine, ...]
    next_cursor: str | None  # None: this was the last page
    total: int | None  # of all pages; None where counting would cost a look at every row


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file that a cycle left."""

    path: str  # relative to the cycle's folder
    size: int | None  # None: no regular file
    sha256: str | None  # hexadecimal; None: no regular file, or it could not be read
    media_type: str
    present: bool  # it is on disk now


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One value of a series."""

    line: int  # of its file, from 1
    at: datetime | None  # where its line says when
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One telemetry series of one cycle: a number that its `logs/*.jsonl` give again and again."""

    name: str  # nested keys dotted: `mood.joy`
    last: float
    count: int
    low: float
    high: float
    mean: float
    points: tuple[Point, ...]  # at most MOST_POINTS, in order, first and last among them


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one promotion that a cycle was given."""

    stem: str
    state: str  # as promotions have; "" where none is remembered
    fitness: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The output of a cycle's command."""

    path: str  # relative to the cycle's folder
    size: int  # bytes on disk now
    tail: str  # its last lines; bytes that are no UTF-8 replaced, control characters shown
    truncated: bool  # the tail is not all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleDetail:
    """One cycle, with everything that is known of it; None is what is not known."""

    line: CycleLine
    preceding: int | None  # the cycle numbered before it
    following: int | None
    folder: str  # absolute
    pruned_at: datetime | None  # folder and bundle were removed
    command: tuple[str, ...]
    working_dir: str
    environment: tuple[str, ...] | None  # names only
    revision: str | None
    exit_code: int | None
    signal: str | None
    wall_seconds: float | None
    cpu_seconds: float | None
    peak_bytes: int | None
    output_truncated: bool
    settled_at: datetime | None
    cancel_asked_at: datetime | None
    deadline: datetime | None  # of a running one
    topic: str
    intent: str  # file name
    intent_reason: str  # as its emitter gave it; empty when its file is gone
    emitted_by: str
    given: tuple[str, ...]  # promotions, by stem
    answers: tuple[Answer, ...]  # of those given
    asked_by: TickLine | None  # the tick that started it, with its findings
    artifacts: tuple[Artifact, ...] | None  # everything it left, logs included; at most MOST_ROWS
    omitted: int  # files beyond those listed
    manifest: str  # its text, as the store has it now; a very long one is cut
    bundle: str  # absolute path; empty when there is none
    logs: tuple[Log, ...]
    telemetry: tuple[Series, ...]
    damaged_lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TickDetail:
    """One tick as `explain` told it then."""

    tick: TickLine  # findings in order of precedence
    ended_at: datetime
    boot_id: str
    blocker: str  # inside the PHASE window: why it started no PHASE; empty otherwise
    counted: tuple[int, ...]  # positions of the findings that made the decision
    cycle: CycleLine | None
    previous: int | None  # number of the tick before
    following: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionRow:
    """One promotion, as it is remembered."""

    stem: str
    promotion_id: str
    state: str  # unacked, parked, accepted, rejected; new: a file that no tick has taken in yet
    fitness: float | None
    failures: int
    reason: str
    first_seen_at: datetime | None  # None of a new one
    changed_at: datetime | None
    cycle: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionsView:
    """Promotions without an answer, and those answered last."""

    folder: str
    waiting: tuple[PromotionRow, ...]  # oldest first, new ones last, parked ones included; at most MOST_ROWS
    omitted: int  # waiting ones beyond those listed
    answered: tuple[PromotionRow, ...]  # newest first
    totals: Mapping[str, int]  # remembered, by state
    unreadable: str  # why the folder can't be read; empty when it can


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentRow:
    """One intent, waiting or decided."""

    name: str
    intent_type: str
    priority: int
    status: str
    reason: str  # why it was decided so
    intent_reason: str  # why somebody wanted it, as its file says; empty when that is gone
    emitted_by: str
    seen_at: datetime
    decided_at: datetime | None  # None while it waits
    cycle: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentsView:
    """Intents that wait, and those decided last."""

    folder: str
    limit: int  # as many may wait
    waiting: tuple[IntentRow, ...]  # next first; at most MOST_ROWS
    decided: tuple[IntentRow, ...]  # newest first
    totals: Mapping[str, int]  # decided ever, by status


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarDay:
    """One local date: what became of its PHASE, or that it is still open or to come."""

    window: WindowLine
    outcome: PhaseLine | None  # None: open, to come, or before the accounting began
    cycles: tuple[int, ...]  # that answer it, newest first


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarView:
    """PHASE by local date, newest first; clock changes are in the windows' instants."""

    time_zone: str  # IANA name
    days: tuple[CalendarDay, ...]
    totals: Mapping[str, int]  # dates accounted for ever, by result
