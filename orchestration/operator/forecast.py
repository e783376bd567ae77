"""`klorosctl forecast`: the PHASE windows to come, with what the clock changes do to them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import click

from orchestration.operator.console import Console, json_option
from orchestration.operator.screen import span
from orchestration.phase.window import Interval, Window
from orchestration.tick import calendar
from orchestration.tick.kernel import Kernel


class Coming(NamedTuple):
    """One local date to come."""

    interval: Interval
    standing: str  # open now, succeeded, …; empty for one that is ahead
    clock_change: str  # what the zone's clocks do on that date; empty on most
    remark: str  # what becomes of the window because of it


@click.command()
@click.option("--days", type=click.IntRange(1, 3660), default=7, show_default=True, help="How many local dates.")
@json_option
@click.pass_obj
def forecast(console: Console, *, days: int) -> None:
    """Show the coming PHASE windows, local and UTC; clock changes are marked."""
    with console.looking() as kernel:
        zone = console.times.zone
        first = console.now.astimezone(zone).date()
        coming = [_coming(kernel, first + timedelta(days=number), console.now) for number in range(days)]
        console.answer([_document(one) for one in coming], lambda: _lines(console, kernel.window, coming))


def _coming(kernel: Kernel, day: Any, now: datetime) -> Coming:
    window = kernel.window
    interval, zone = window.on(day), ZoneInfo(window.time_zone)
    recorded = calendar.get(kernel.db, day)
    if recorded is not None:
        standing = str(recorded.result)
    elif interval.contains(now):
        standing = "open now"
    else:
        standing = "closed" if interval.closes <= now and not interval.is_empty else ""
    return Coming(interval, standing, _clock_change(interval, zone), _remark(interval, window, zone))


def _clock_change(interval: Interval, zone: ZoneInfo) -> str:
    """Say how the clocks change between the date's midnights, or in the window's own hours past them."""
    begins = datetime.combine(interval.date, time(0), zone)
    ends = max(datetime.combine(interval.date + timedelta(days=1), time(0), zone), interval.closes.astimezone(zone))
    before, after = begins.utcoffset() or timedelta(), ends.utcoffset() or timedelta()
    if before == after:
        return ""
    way = f"forward {span(after - before)}" if after > before else f"back {span(before - after)}"
    return f"clocks go {way}, {begins:%Z} to {ends:%Z}"


def _remark(interval: Interval, window: Window, zone: ZoneInfo) -> str:
    if interval.is_empty:
        return "no window: the clock change leaves it no time"
    opens, closes = interval.opens.astimezone(zone), interval.closes.astimezone(zone)
    moved = [
        f"{name} {real:%H:%M}, for {asked:%H:%M} does not exist"
        for name, real, asked in (("opens", opens, window.opens), ("closes", closes, window.closes))
        if real.time() != asked
    ]
    return "; ".join(moved)


def _document(one: Coming) -> dict[str, Any]:
    return {
        **one.interval._asdict(),
        "empty": one.interval.is_empty,
        "standing": one.standing,
        "clock_change": one.clock_change,
        "remark": one.remark,
    }


def _lines(console: Console, window: Window, coming: list[Coming]) -> Iterator[str]:
    screen = console.screen
    yield screen.heading(f"PHASE windows, local times of {window.time_zone}")
    rows = [_row(console, one) for one in coming]
    yield from screen.table(("DATE", "LOCAL", "UTC", "LENGTH", "REMARKS"), rows)


def _row(console: Console, one: Coming) -> tuple[str, str, str, str, str]:
    day, opens, closes = one.interval
    remarks = "; ".join(filter(None, (one.standing, one.clock_change, one.remark)))
    if one.interval.is_empty:
        return f"{day:%a %Y-%m-%d}", "-", "-", "-", remarks
    zone = console.times.zone
    local_opens, local_closes = opens.astimezone(zone), closes.astimezone(zone)
    names = f"{local_opens:%Z}" if local_opens.tzname() == local_closes.tzname() else f"{local_opens:%Z}/{local_closes:%Z}"
    return (
        f"{day:%a %Y-%m-%d}",
        f"{local_opens:%H:%M}-{local_closes:%H:%M} {names}",
        f"{opens.astimezone(UTC):%H:%M}-{closes.astimezone(UTC):%H:%M}",
        span(closes - opens),
        remarks,
    )
