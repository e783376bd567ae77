"""One PHASE for each local date, or the reason why it has none: every date is accounted for, in order, once.

A date is open while its window is, or while a PHASE that answers it still runs. The first tick ever sets where the
accounting begins; from then on a host that was down for days accounts for each of the dates it missed.
"""

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, cast

from orchestration.cycles import ledger
from orchestration.cycles.cycle import ACTIVE, Cause, Cycle, CycleState
from orchestration.phase.window import Interval
from orchestration.store.counters import count
from orchestration.store.instants import from_text, to_text
from orchestration.store.port import Database
from orchestration.tick import history
from orchestration.tick.kernel import Kernel

_THROUGH = "phase.accounted_through"
_AHEAD = timedelta(days=2)  # more than any zone's date is ahead of UTC's: a date beyond was closed by a wrong clock


class DateResult(StrEnum):
    """What became of the PHASE of a local date."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


class SkipReason(StrEnum):
    """Why a date has no PHASE, beside the reasons that ticks inside its window gave."""

    HOST_DOWN = "host_down"
    NO_TICKS = "no_ticks"
    EMPTY_WINDOW = "empty_window"
    NOT_STARTED = "not_started"
    CANCELLED = "cancelled"


class PhaseDate(NamedTuple):
    """One accounted date; instants are aware UTC."""

    date: date
    result: DateResult
    reason: str
    evidence: str
    cycle: int | None
    opens: datetime
    closes: datetime


def account(kernel: Kernel, now: datetime) -> list[PhaseDate]:
    """Account for every date whose window has closed since the last accounting; costs one read when there is none.

    Must run inside a transaction. Returns the recorded dates that have no PHASE, oldest first.
    """
    without: list[PhaseDate] = []
    through = _accounted_through(kernel.db)
    if through is None:
        kernel.db.run("facts.set", name=_THROUGH, value=kernel.window.last_closed(now).date.isoformat())
        return without
    if through > (now + _AHEAD).date():
        through = _go_back(kernel, now)
    for interval in kernel.window.closed_between(through, now):
        attempts = ledger.of_date(kernel.db, interval.date)
        if any(attempt.state in ACTIVE for attempt in attempts):
            break
        if get(kernel.db, interval.date) is None:
            day = _outcome(kernel, interval, attempts)
            _record(kernel.db, day, now)
            if day.result is not DateResult.SUCCEEDED:
                without.append(day)
        kernel.db.run("facts.set", name=_THROUGH, value=interval.date.isoformat())
    return without


def settle_phase(kernel: Kernel, cycle: Cycle, now: datetime) -> None:
    """Account at once for what a finished PHASE decides about its date: success, or the one try to make up for it.

    And any failure of a date that has its account already: the clock was ahead, and the date came again.
    """
    day = cycle.phase_date
    if day is None:
        return
    decides = cycle.state is CycleState.SUCCEEDED or cycle.origin.cause is Cause.MISSED_WINDOW
    if decides or (cycle.state is not CycleState.CANCELLED and get(kernel.db, day) is not None):
        _record(kernel.db, _of_attempts(kernel.window.on(day), [cycle]), now)


def take_over(db: Database, day: PhaseDate, now: datetime) -> None:
    """Record a date that another program accounted for; it counts here, but is none of our PHASEs. Inside a transaction."""
    _write(db, day, now)


def missed(kernel: Kernel, now: datetime) -> Interval | None:
    """Return the newest closed window to make up for, when the settings want that and nobody has tried."""
    if kernel.settings.phase.missed != "run_once":
        return None
    last = kernel.window.last_closed(now)
    found = get(kernel.db, last.date)
    if found is None or found.result is not DateResult.SKIPPED or last.is_empty:
        return None
    return None if ledger.of_date(kernel.db, last.date) else last


def get(db: Database, day: date) -> PhaseDate | None:
    """Return what is recorded of a date, or None while it is open or before the accounting began."""
    rows = db.rows("phase_dates.get", local_date=day.isoformat())
    return _dates(rows[0]) if rows else None


def recent(db: Database, limit: int) -> list[PhaseDate]:
    """Return the newest accounted dates, newest first."""
    return [_dates(row) for row in db.rows("phase_dates.recent", limit=limit)]


def since(db: Database, day: date) -> list[PhaseDate]:
    """Return the accounted dates from one on, newest first."""
    return [_dates(row) for row in db.rows("phase_dates.since", since=day.isoformat())]


def _accounted_through(db: Database) -> date | None:
    rows = db.rows("facts.get", name=_THROUGH)
    return date.fromisoformat(cast("str", rows[0]["value"])) if rows else None


def _go_back(kernel: Kernel, now: datetime) -> date:
    """Open again the dates that were closed at an instant yet to come; return the last one that stays accounted for."""
    through = kernel.window.last_closed(now).date
    first = kernel.db.rows("phase_dates.first_ahead", now=to_text(now))[0]["local_date"]
    if first is not None:
        through = min(through, date.fromisoformat(cast("str", first)) - timedelta(days=1))
        kernel.db.run("phase_dates.reopen", now=to_text(now))
    kernel.db.run("facts.set", name=_THROUGH, value=through.isoformat())
    return through


def _outcome(kernel: Kernel, interval: Interval, attempts: list[Cycle]) -> PhaseDate:
    if any(attempt.state is not CycleState.CANCELLED for attempt in attempts):
        return _of_attempts(interval, attempts)
    if attempts:
        reason, evidence = str(SkipReason.CANCELLED), f"a person cancelled cycle {attempts[0].cycle}"
    else:
        reason, evidence = _why_skipped(kernel, interval)
    return PhaseDate(interval.date, DateResult.SKIPPED, reason, evidence, None, interval.opens, interval.closes)


def _of_attempts(interval: Interval, attempts: list[Cycle]) -> PhaseDate:
    decisive = next((a for a in attempts if a.state is CycleState.SUCCEEDED), attempts[0])
    won = decisive.state is CycleState.SUCCEEDED
    said = "" if decisive.result is None else decisive.result.reason
    evidence = f"cycle {decisive.cycle} {decisive.state}: {said}"
    reason = str(decisive.origin.cause) if won else str(decisive.state)
    result = DateResult.SUCCEEDED if won else DateResult.FAILED
    return PhaseDate(interval.date, result, reason, evidence, decisive.cycle, interval.opens, interval.closes)


def _why_skipped(kernel: Kernel, interval: Interval) -> tuple[str, str]:
    if interval.is_empty:
        return SkipReason.EMPTY_WINDOW, "the clock change of that day leaves the window no time"
    ticks = history.blockers(kernel.db, interval.opens, interval.closes)
    reasons = [(reason, number) for reason, number in ticks if reason]
    if reasons:
        counted = ", ".join(f"{reason} {number}" for reason, number in reasons)
        return reasons[0][0], f"ticks inside the window: {counted}"
    if ticks:
        return SkipReason.NOT_STARTED, f"{ticks[0][1]} ticks inside the window name no reason"
    return _why_no_ticks(kernel, interval)


def _why_no_ticks(kernel: Kernel, interval: Interval) -> tuple[str, str]:
    before = history.last_of_any_before(kernel.db, interval.opens)
    if kernel.leading is not None:
        last = "ever" if before is None else f"since {to_text(before.started_at)}"
        return SkipReason.HOST_DOWN, f"no host of the scope has ticked {last}, until after the window"
    if before is not None and before.boot_id == kernel.boot_id:
        evidence = f"no tick since {to_text(before.started_at)}, and the host was not restarted: is the timer enabled?"
        return SkipReason.NO_TICKS, evidence
    since = "ever" if before is None else f"since {to_text(before.started_at)}"
    return SkipReason.HOST_DOWN, f"no tick {since}, and the host was started again after it"


def _record(db: Database, day: PhaseDate, now: datetime) -> None:
    before = get(db, day.date)
    changed = _write(db, day, now)
    if changed and (before is None or before.result is not day.result):
        count(db, "kloros_phase_dates_total", result=day.result)


def _write(db: Database, day: PhaseDate, now: datetime) -> int:
    return db.run(
        "phase_dates.record",
        local_date=day.date.isoformat(),
        result=day.result,
        reason=day.reason,
        evidence=day.evidence,
        cycle=day.cycle,
        opens_at=to_text(day.opens),
        closes_at=to_text(day.closes),
        recorded_at=to_text(now),
    )


def _dates(row: object) -> PhaseDate:
    column = cast("dict[str, str]", row)
    return PhaseDate(
        date=date.fromisoformat(column["local_date"]),
        result=DateResult(column["result"]),
        reason=column["reason"],
        evidence=column["evidence"],
        cycle=cast("int | None", column["cycle"]),
        opens=from_text(column["opens_at"]),
        closes=from_text(column["closes_at"]),
    )
