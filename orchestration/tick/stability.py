"""Whether the ticks went well for a span of time, with what shows it: failed ticks, pauses, PHASE dates, lost cycles.

Reads the store, changes nothing. A tick that was turned away because another held the lock is none that failed; one that
was turned away because ticks are disabled or halted looked at nothing, so the time until the next real one is a pause.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, cast

from orchestration.cycles import ledger
from orchestration.cycles.cycle import ACTIVE
from orchestration.exits import Exit
from orchestration.store.instants import from_text, from_text_or_none, to_text
from orchestration.tick import calendar
from orchestration.tick.kernel import Kernel

_WELL = json.dumps([Exit.DONE, Exit.DISABLED, Exit.HALTED, Exit.LOCK_HELD])
_AWAY = json.dumps([Exit.DISABLED, Exit.HALTED])
_MOST = 100_000


class Verdict(StrEnum):
    """What the span says."""

    READY = "ready"
    NOT_READY = "not_ready"
    NOT_YET = "not_yet"  # nothing speaks against it, but the history is shorter than the span


class Sign(NamedTuple):
    """One thing that was looked at."""

    name: str
    fine: bool
    faults: int
    evidence: str
    first: str = ""  # the first that is not as it should be


class Stability(NamedTuple):
    """What was found; instants are aware UTC."""

    since: datetime
    until: datetime
    history_since: datetime | None  # when the first tick was; None before it
    signs: tuple[Sign, ...]

    @property
    def verdict(self) -> Verdict:
        """Say whether the loop was stable."""
        if not all(sign.fine for sign in self.signs):
            return Verdict.NOT_READY
        whole = self.history_since is not None and self.history_since <= self.since
        return Verdict.READY if whole else Verdict.NOT_YET

    @property
    def ready_at(self) -> datetime | None:
        """Return when the history will be long enough; None before the first tick."""
        return None if self.history_since is None else self.history_since + (self.until - self.since)


def examine(kernel: Kernel, *, length: timedelta, longest_pause: timedelta, now: datetime) -> Stability:
    """Look at the time from `length` before `now` (aware UTC) on, as far as there is any history."""
    since = now - length
    (row,) = kernel.db.rows("stability.first_tick")
    begun = from_text_or_none(cast("str | None", row["started_at"]))
    if begun is None:
        return Stability(since, now, None, ())
    start = max(since, begun)
    signs = (
        _failed_ticks(kernel, start, now),
        _pauses(kernel, start, now, longest_pause),
        _phase_dates(kernel, start, now, longest_pause),
        _lost_cycles(kernel, start, now),
    )
    return Stability(since, now, begun, signs)


def _failed_ticks(kernel: Kernel, since: datetime, until: datetime) -> Sign:
    span = {"since": to_text(since), "until": to_text(until)}
    rows = kernel.db.rows("stability.tick_exits", **span)
    exits = {_exit(row["exit_code"]): cast(int, row["ticks"]) for row in rows}
    failed = kernel.db.rows("stability.failed_ticks", **span, well=_WELL, limit=_MOST)
    counted = ", ".join(f"{number} {code}" for code, number in exits.items())
    first = next((f"tick {row['tick']} at {row['started_at']}: {_exit(row['exit_code'])}" for row in failed), "")
    return Sign("failed_ticks", not failed, len(failed), f"{sum(exits.values())} ticks: {counted}", first)


def _exit(code: object) -> str:
    return Exit(cast(int, code)).name.lower()


def _pauses(kernel: Kernel, since: datetime, until: datetime, longest: timedelta) -> Sign:
    early = to_text(since - longest)  # so that the tick before the span is among them
    rows = kernel.db.rows(
        "stability.tick_gaps", since=early, until=to_text(until), away=_AWAY, seconds=longest.total_seconds()
    )
    pauses = [(from_text(cast(str, row["before"])), from_text(cast(str, row["after"]))) for row in rows]
    (edges,) = kernel.db.rows("stability.tick_edges", since=early, until=to_text(until), away=_AWAY)
    first, last = (from_text_or_none(cast("str | None", edges[name])) for name in ("first", "last"))
    if first is None or last is None:
        pauses = [(since, until)]
    else:
        pauses += [(since, first)] if first - since > longest else []
        pauses += [(last, until)] if until - last > longest else []
    pauses.sort()
    evidence = f"{len(pauses)} pause{'' if len(pauses) == 1 else 's'} longer than {longest.total_seconds():.0f} s"
    if pauses:
        evidence += f", the longest {max(after - before for before, after in pauses)}".partition(".")[0]
    shown = f"from {to_text(pauses[0][0])} to {to_text(pauses[0][1])}" if pauses else ""
    return Sign("pauses", not pauses, len(pauses), evidence, shown)


def _phase_dates(kernel: Kernel, since: datetime, until: datetime, grace: timedelta) -> Sign:
    """Look for a date whose window has closed and that nobody accounts for; the next tick may still have to."""
    before = kernel.window.last_closed(since).date
    closed = [one for one in kernel.window.closed_between(before, until) if one.closes > since]
    recorded = {day.date: day for day in calendar.since(kernel.db, before)}
    missing = [
        interval.date
        for interval in closed
        if interval.date not in recorded and until - interval.closes > grace and not _is_running(kernel, interval.date)
    ]
    found = [recorded[interval.date] for interval in closed if interval.date in recorded]
    counts = Counter(f"{day.result} ({day.reason})" if day.result != "succeeded" else str(day.result) for day in found)
    counted = ", ".join(f"{number} {what}" for what, number in sorted(counts.items())) or "none"
    evidence = f"{len(closed)} dates: {counted}"
    return Sign("phase_dates", not missing, len(missing), evidence, f"{missing[0]} has no account" if missing else "")


def _is_running(kernel: Kernel, day: date) -> bool:
    return any(attempt.state in ACTIVE for attempt in ledger.of_date(kernel.db, day))


def _lost_cycles(kernel: Kernel, since: datetime, until: datetime) -> Sign:
    lost = kernel.db.rows("stability.lost_cycles", since=to_text(since), until=to_text(until))
    first = f"cycle {lost[0]['cycle']} ({lost[0]['job']}) at {lost[0]['at']}" if lost else ""
    return Sign("lost_cycles", not lost, len(lost), f"{len(lost)} lost", first)
