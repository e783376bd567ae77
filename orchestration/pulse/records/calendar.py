"""Reads PHASE by local date."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final, cast

from orchestration.phase.window import Window
from orchestration.pulse.lines import phase_line
from orchestration.pulse.loop_health import WindowLine
from orchestration.pulse.views import CalendarDay, CalendarView
from orchestration.store.port import Database
from orchestration.tick import calendar

if TYPE_CHECKING:
    from orchestration.settings import Settings

_MOST_DAYS: Final = 400
_DAY: Final = timedelta(days=1)


def calendar_view(settings: Settings, db: Database, now: datetime, *, days: int = 30) -> CalendarView:
    """Return the local dates from the next window's back, so many and the next (1 to 400), newest first."""
    phase = settings.phase
    window = Window(phase.window_opens, phase.window_closes, phase.time_zone)
    newest = window.next_after(now).date
    dates = [newest - back * _DAY for back in range(max(1, min(days, _MOST_DAYS)) + 1)]
    since = dates[-1].isoformat()
    with db.transaction(looking=True):
        outcomes = {day.date: day for day in calendar.since(db, dates[-1])}
        answering: dict[date, list[int]] = {}
        for row in db.rows("records.cycles_of_dates", since=since):
            day = date.fromisoformat(cast("str", row["phase_date"]))
            answering.setdefault(day, []).append(cast("int", row["cycle"]))
        counted = {cast("str", row["result"]): cast("int", row["dates"]) for row in db.rows("records.dates")}
    return CalendarView(
        time_zone=phase.time_zone,
        days=tuple(_day(window, one, outcomes.get(one), answering.get(one, ())) for one in dates),
        totals={str(result): counted.get(result, 0) for result in calendar.DateResult},
    )


def _day(window: Window, day: date, outcome: calendar.PhaseDate | None, cycles: list[int] | tuple[()]) -> CalendarDay:
    """Write one date; of one that is accounted for the window that it had, whatever the settings say now."""
    interval = window.on(day)
    opens, closes = (interval.opens, interval.closes) if outcome is None else (outcome.opens, outcome.closes)
    return CalendarDay(
        window=WindowLine(date=day, opens=opens, closes=closes),
        outcome=None if outcome is None else phase_line(outcome),
        cycles=tuple(cycles),
    )
