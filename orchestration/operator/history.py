"""`klorosctl history`: the ticks, the cycles and the PHASE dates that were, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import click

from orchestration.cycles import ledger
from orchestration.errors import Usage
from orchestration.operator.console import Console, json_option
from orchestration.operator.records import cycle_json, cycle_rows
from orchestration.tick import calendar
from orchestration.tick import history as ticks
from orchestration.tick.calendar import PhaseDate
from orchestration.tick.history import Tick
from orchestration.tick.kernel import Kernel


@click.command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="At most so many.")
@click.option("--date", "day", metavar="YYYY-MM-DD", help="Only the ticks of this local date.")
@click.option("--dates", "what", flag_value="dates", help="PHASE dates instead: what became of each.")
@click.option("--cycles", "what", flag_value="cycles", help="Cycles instead.")
@json_option
@click.pass_obj
def history(console: Console, *, limit: int, day: str | None, what: str | None) -> None:
    """Show what ticks decided and why; or the PHASE dates, or the cycles."""
    if day is not None and what is not None:
        raise Usage("--date chooses ticks", hint="leave out --dates and --cycles")
    with console.looking() as kernel:
        if what == "dates":
            dates = calendar.recent(kernel.db, limit)
            console.answer([one._asdict() for one in dates], lambda: _date_lines(console, dates))
        elif what == "cycles":
            cycles = ledger.recent(kernel.db, limit)
            console.answer(
                [cycle_json(one) for one in cycles],
                lambda: cycle_rows(console, cycles) if cycles else ["No cycle yet. See when: klorosctl explain"],
            )
        else:
            found = ticks.recent(kernel.db, limit) if day is None else _of_date(console, kernel, day, limit)
            console.answer([ticks.as_json(one) for one in found], lambda: _tick_lines(console, found))


def _of_date(console: Console, kernel: Kernel, text: str, limit: int) -> list[Tick]:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise Usage(f"--date {text!r} is not a date", hint="write it as 2026-11-21") from None
    zone = ZoneInfo(console.settings.phase.time_zone)
    since, until = (datetime.combine(day + timedelta(days=ahead), time(0), zone) for ahead in (0, 1))
    return ticks.between(kernel.db, since, until, limit)


def _tick_lines(console: Console, found: list[Tick]) -> Iterator[str]:
    if not found:
        yield "No such tick. Do one: klorosctl tick    See whether ticks come: klorosctl status"
        return
    rows = []
    for one in found:
        local, utc = console.times.columns(one.started_at)
        started = "" if one.cycle is None else f"cycle {one.cycle}: "
        rows.append((local, utc, one.decision, started + ", ".join(one.reasons)))
    yield console.screen.heading(f"Ticks, local times of {console.times.name}")
    yield from console.screen.table(("LOCAL", "UTC", "DECISION", "WHY"), rows)


def _date_lines(console: Console, dates: list[PhaseDate]) -> Iterator[str]:
    if not dates:
        yield "No date is accounted for yet: the first tick begins the account with the next window that closes."
        return
    rows = [
        (str(one.date), str(one.result), "" if one.cycle is None else str(one.cycle), f"{one.reason}: {one.evidence}")
        for one in dates
    ]
    yield from console.screen.table(("DATE", "RESULT", "CYCLE", "WHY"), rows)
