"""`klorosctl status`: everything an operator asks first, on one screen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import click

from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cycle
from orchestration.host.lock import FileLock
from orchestration.intents import inbox
from orchestration.operator.console import Console, json_option
from orchestration.operator.records import cycle_json, cycle_rows, elapsed
from orchestration.operator.screen import span
from orchestration.promotions.scan import scan_unacked
from orchestration.pulse import notice_ledger
from orchestration.tick import calendar, history
from orchestration.tick.calendar import PhaseDate
from orchestration.tick.gate import KILL_SWITCH
from orchestration.tick.history import Tick
from orchestration.tick.kernel import Kernel
from orchestration.tick.observe import MAINTENANCE_FILE

STALE_AFTER = timedelta(minutes=3)
"""A timer ticks each minute; this long without one is no accident."""
SHOWN_CYCLES = 5


class Seen(NamedTuple):
    """What status knows; instants are aware UTC."""

    mode: str
    mode_source: str
    halted: bool
    maintenance: bool
    tick: Tick | None
    stale: bool
    active: list[Cycle]
    orphaned: bool  # a cycle stands as running, and no runner lives
    waiting: list[str]  # promotions, by file name
    parked: list[str]
    intents: list[str]  # file names
    cycles: list[Cycle]
    last_date: PhaseDate | None
    untold: list[str]  # notices that can't be delivered, with what keeps them


@click.command()
@json_option
@click.pass_obj
def status(console: Console) -> None:
    """Show mode, last tick, active cycle, next PHASE window, queues and the last cycles."""
    with console.looking() as kernel:
        seen = look(console, kernel)
        console.answer(_document(console, kernel, seen), lambda: _lines(console, kernel, seen))


def look(console: Console, kernel: Kernel) -> Seen:
    """Read all of it; changes nothing."""
    settings = console.settings
    tick = next(iter(history.recent(kernel.db, 1)), None)
    active = ledger.active(kernel.db)
    scan = scan_unacked(kernel.db, promotions_dir=settings.promotions_dir, acks_dir=settings.acks_dir, remember=False)
    halted = os.path.lexists(console.path(KILL_SWITCH))
    return Seen(
        mode=settings.orchestration_mode,
        mode_source=console.mode_source(),
        halted=halted,
        maintenance=os.path.exists(console.path(MAINTENANCE_FILE)),
        tick=tick,
        stale=tick is not None and settings.orchestration_mode == "enabled" and console.now - tick.started_at > STALE_AFTER,
        active=active,
        orphaned=any(c.started_at for c in active) and FileLock(console.path("locks", "runner.lock")).is_free(),
        waiting=scan.waiting,
        parked=scan.parked,
        intents=inbox.list_names(console.path("intents")),
        cycles=ledger.recent(kernel.db, SHOWN_CYCLES),
        last_date=next(iter(calendar.recent(kernel.db, 1)), None),
        untold=notice_ledger.undelivered(kernel.db),
    )


def _document(console: Console, kernel: Kernel, seen: Seen) -> dict[str, Any]:
    window = kernel.window
    open_now, ahead = window.containing(console.now), window.next_after(console.now)
    return {
        "now": console.now,
        "mode": {"value": seen.mode, "source": seen.mode_source},
        "halted": seen.halted,
        "maintenance": seen.maintenance,
        "last_tick": None if seen.tick is None else {**history.as_json(seen.tick), "age_seconds": _age(console, seen.tick)},
        "stale": seen.stale,
        "active": [cycle_json(cycle) for cycle in seen.active],
        "window": {
            "time_zone": window.time_zone,
            "open": None if open_now is None else open_now._asdict(),
            "next": ahead._asdict(),
            "last_date": None if seen.last_date is None else seen.last_date._asdict(),
        },
        "queues": {
            "promotions_unacked": len(seen.waiting),
            "promotions_parked": len(seen.parked),
            "intents_pending": len(seen.intents),
        },
        "cycles": [cycle_json(cycle) for cycle in seen.cycles],
        "notices_undelivered": seen.untold,
    }


def _age(console: Console, tick: Tick) -> float:
    return (console.now - tick.started_at).total_seconds()


def _lines(console: Console, kernel: Kernel, seen: Seen) -> Iterator[str]:
    screen, times = console.screen, console.times
    yield screen.heading(f"KLoROS orchestrator on {os.uname().nodename}, {times.both(console.now)}")
    yield from _alarms(console, seen)
    yield ""
    yield from screen.field("Mode", f"{screen.state(seen.mode)}, says {seen.mode_source}")
    yield from _tick_lines(console, seen)
    yield from _active_lines(console, seen)
    yield from _window_lines(console, kernel, seen)
    yield from _queue_lines(console, seen)
    yield ""
    if seen.cycles:
        yield from cycle_rows(console, seen.cycles)
    else:
        yield "No cycle yet."


def _alarms(console: Console, seen: Seen) -> Iterator[str]:
    alarm = console.screen.alarm
    if seen.halted:
        yield from alarm(f"HALTED: {console.path(KILL_SWITCH)} exists, no tick does anything. Go on: klorosctl unhalt")
    if seen.maintenance:
        yield from alarm("MAINTENANCE: ticks start nothing new. Go on: klorosctl maintenance off")
    if seen.mode != "enabled":
        yield from alarm("DISABLED: no tick does anything. Go on: klorosctl enable")
    if seen.stale and seen.tick is not None:
        age = span(console.now - seen.tick.started_at)
        yield from alarm(f"NO TICK for {age} although orchestration is enabled. Why: klorosctl doctor")
    if seen.orphaned:
        yield from alarm("A cycle stands as running and no runner lives; the next tick records it as lost.")
    if seen.parked:
        yield from alarm(f"{len(seen.parked)} parked: klorosctl promotions list, then promotions retry or reject")
    for untold in seen.untold:
        yield from alarm(f"notices can't be delivered: {untold}. They are tried again; see docs/how-to/notices.md")


def _tick_lines(console: Console, seen: Seen) -> Iterator[str]:
    screen, tick = console.screen, seen.tick
    if tick is None:
        yield from screen.field("Last tick", *_no_tick(console, seen))
        return
    what = tick.decision.upper() + ("" if tick.cycle is None else f", cycle {tick.cycle}")
    age = console.times.ago(tick.started_at)
    yield from screen.field("Last tick", f"{screen.state(tick.decision, what)} {age}", console.times.both(tick.started_at))
    for _, reason, evidence in counted(tick):
        yield from screen.wrap(f"{reason}: {evidence}", first=" " * 11 + "- ", rest=" " * 13)


def counted(tick: Tick) -> list[tuple[str, str, str]]:
    """Return the findings that made the decision."""
    return [finding for finding in tick.findings if finding[1] in tick.reasons]


def _no_tick(console: Console, seen: Seen) -> tuple[str, str]:
    if seen.mode != "enabled":
        return "no tick yet: orchestration is disabled", "klorosctl enable, then klorosctl tick"
    if console.units.fragment():
        return "no tick yet: the timer starts one each minute", "now: klorosctl tick    why not: klorosctl doctor"
    return (
        "no tick yet, and no systemd unit ticks for this installation",
        "do one now: klorosctl tick    look first: klorosctl explain",
    )


def _active_lines(console: Console, seen: Seen) -> Iterator[str]:
    if not seen.active:
        yield from console.screen.field("Active", "no cycle")
    for cycle in seen.active:
        name = f"cycle {cycle.cycle} ({cycle.job}) {console.screen.state(cycle.state)}"
        yield from console.screen.field("Active", f"{name}, {elapsed(cycle, console.now)}")


def _window_lines(console: Console, kernel: Kernel, seen: Seen) -> Iterator[str]:
    times, window = console.times, kernel.window
    open_now, ahead = window.containing(console.now), window.next_after(console.now)
    lines = []
    if open_now is not None:
        lines.append(f"the window of {open_now.date} is open until {times.both(open_now.closes, seconds=False)}")
    lines.append(f"next window {times.both(ahead.opens, seconds=False)}, {times.ago(ahead.opens)}")
    lines.append(f"open for {span(ahead.closes - ahead.opens)}, times of {window.time_zone}")
    if seen.last_date is not None:
        day = seen.last_date
        lines.append(f"last date {day.date}: {day.result} ({day.reason}){_of(day.cycle)}")
    yield from console.screen.field("PHASE", *lines)


def _of(cycle: int | None) -> str:
    return "" if cycle is None else f", cycle {cycle}"


def _queue_lines(console: Console, seen: Seen) -> Iterator[str]:
    promotions = f"promotions: {len(seen.waiting)} unacked, {len(seen.parked)} parked"
    yield from console.screen.field("Queues", f"{promotions}    intents: {len(seen.intents)} pending")
