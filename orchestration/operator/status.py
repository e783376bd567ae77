"""`klorosctl status`: everything an operator asks first, on one screen: a view of `pulse/survey.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from orchestration.cycles import claims, ledger, orphan
from orchestration.cycles.cycle import Cycle
from orchestration.errors import StoreUnreachable
from orchestration.operator import after_cycle, scope
from orchestration.operator.console import Console, json_option
from orchestration.operator.records import cycle_json, cycle_rows, elapsed
from orchestration.operator.screen import span
from orchestration.pulse import away, document, health, notice_ledger, scope_document
from orchestration.pulse.health import Condition, Mode, Verdict
from orchestration.pulse.loop_health import LoopHealth, Queue, WindowLine
from orchestration.pulse.signs import switches
from orchestration.pulse.survey import survey
from orchestration.tick import history
from orchestration.tick.history import Tick
from orchestration.tick.kernel import Kernel
from orchestration.tick.observe import waits

SHOWN_CYCLES = 5


class Seen(NamedTuple):
    """What status knows."""

    health: LoopHealth
    mode_source: str
    switches: tuple[Mode, ...]
    tick: Tick | None
    active: list[Cycle]
    waits: tuple[str, ...]  # of each of these: for what it waits, or where it runs
    orphaned: bool  # a cycle stands as running, and no runner lives
    cycles: list[Cycle]
    untold: list[str]  # notices that can't be delivered, with what keeps them


@click.command()
@json_option
@click.pass_obj
def status(console: Console) -> None:
    """Show the verdict and its causes, mode, last tick, active cycle, next PHASE window, queues and the last cycles."""
    try:
        with console.looking() as kernel:
            seen = look(console, kernel)
    except StoreUnreachable as error:
        raise away.explained(console.settings, error, console.now) from None
    console.answer(_document(console, seen), lambda: _lines(console, seen))


def look(console: Console, kernel: Kernel) -> Seen:
    """Read all of it; changes nothing."""
    active = ledger.standing(kernel.db)
    here = claims.here(console.settings)
    running = [cycle for cycle in active if cycle.started_at and claims.is_ours(cycle, here)]
    return Seen(
        health=survey(console.settings, kernel.db, console.now, boot_id=kernel.boot_id, cycles=SHOWN_CYCLES, failures=0),
        mode_source=console.mode_source(),
        switches=switches(console.settings),
        tick=next(iter(history.recent(kernel.db, 1)), None),
        active=active,
        waits=tuple(waits(kernel, cycle) for cycle in active),
        orphaned=any(orphan.lock_of(console.settings.state_dir, cycle).is_free() for cycle in running),
        cycles=ledger.recent(kernel.db, SHOWN_CYCLES),
        untold=notice_ledger.undelivered(kernel.db),
    )


def _document(console: Console, seen: Seen) -> dict[str, Any]:
    shown = seen.health
    queues = {queue.name: queue.count for queue in shown.queues}
    return {
        "now": shown.generated_at,
        **health.as_json(shown.judgement),
        "mode": {"value": console.settings.orchestration_mode, "source": seen.mode_source},
        "halted": Mode.HALTED in seen.switches,
        "maintenance": Mode.MAINTENANCE in seen.switches,
        "last_tick": None if seen.tick is None else {**history.as_json(seen.tick), "age_seconds": _age(console, seen.tick)},
        "stale": any(cause.condition is Condition.TICK_STALE for cause in shown.judgement.causes),
        "active": [{**cycle_json(cycle), "waits": told} for cycle, told in zip(seen.active, seen.waits, strict=True)],
        "window": {
            "time_zone": shown.time_zone,
            "open": _window(shown.open_window),
            "next": _window(shown.next_window),
            "last_date": document.phase_date(shown.phase_dates[0]) if shown.phase_dates else None,
        },
        "queues": {
            "promotions_unacked": queues["promotions"],
            "promotions_parked": len(shown.parked),
            "intents_pending": queues["intents"],
            "federation_pending": queues["federation"],
            "escrow_pending": queues["escrow"],
        },
        **after_cycle.as_json(shown),
        "scope": None if shown.scope is None else scope_document.as_json(shown.scope),
        "cycles": [cycle_json(cycle) for cycle in seen.cycles],
        "notices_undelivered": seen.untold,
    }


def _window(window: WindowLine | None) -> dict[str, Any] | None:
    return None if window is None else {"date": window.date, "opens": window.opens, "closes": window.closes}


def _age(console: Console, tick: Tick) -> float:
    return (console.now - tick.started_at).total_seconds()


def _lines(console: Console, seen: Seen) -> Iterator[str]:
    screen, times = console.screen, console.times
    yield screen.heading(f"KLoROS orchestrator on {seen.health.host}, {times.both(console.now)}")
    yield from _verdict_lines(console, seen)
    yield ""
    yield from screen.field("Mode", f"{screen.state(console.settings.orchestration_mode)}, says {seen.mode_source}")
    yield from scope.lines(console, seen.health.scope)
    yield from _tick_lines(console, seen)
    yield from _active_lines(console, seen)
    yield from _window_lines(console, seen)
    yield from _queue_lines(console, seen)
    yield from after_cycle.lines(console, seen.health)
    yield ""
    if seen.cycles:
        yield from cycle_rows(console, seen.cycles)
    else:
        yield "No cycle yet."


_MEANS = {
    Verdict.OK: "nothing is wrong",
    Verdict.DEGRADED: "it works, and something wants a person's eye",
    Verdict.FAILING: "it runs, and what it runs does not succeed",
    Verdict.STOPPED: "nothing is decided or run",
    Verdict.UNKNOWN: "there is nothing to judge by",
}


def _verdict_lines(console: Console, seen: Seen) -> Iterator[str]:
    """Write the verdict and what led to it: what, since when, what to type."""
    screen, judgement = console.screen, seen.health.judgement
    yield from screen.field(
        "Health", f"{screen.state(judgement.verdict, judgement.verdict.upper())}: {_MEANS[judgement.verdict]}"
    )
    for cause in judgement.causes:
        name = cause.condition.upper().replace("_", " ")
        age = console.now - cause.since
        since = f", for {span(age)}" if age.total_seconds() >= 1 else ""
        yield from screen.alarm(f"{name}: {cause.evidence}{since}. Do: {cause.advice}")
    for untold in seen.untold:
        yield from screen.alarm(f"notices can't be delivered: {untold}. They are tried again; see docs/how-to/notices.md")


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
    if Mode.DISABLED in seen.switches:
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
    if seen.orphaned:
        yield from console.screen.alarm("A cycle stands as running and no runner lives; the next tick records it as lost.")
    for cycle, told in zip(seen.active, seen.waits, strict=True):
        name = f"cycle {cycle.cycle} ({cycle.job}) {console.screen.state(cycle.state)}"
        yield from console.screen.field("Active", f"{name}, {elapsed(cycle, console.now, told)}")


def _window_lines(console: Console, seen: Seen) -> Iterator[str]:
    times, shown = console.times, seen.health
    open_now, ahead = shown.open_window, shown.next_window
    lines = []
    if open_now is not None:
        lines.append(f"the window of {open_now.date} is open until {times.both(open_now.closes, seconds=False)}")
    if ahead is not None:
        lines.append(f"next window {times.both(ahead.opens, seconds=False)}, {times.ago(ahead.opens)}")
        lines.append(f"open for {span(ahead.closes - ahead.opens)}, times of {shown.time_zone}")
    for day in shown.phase_dates[:1]:
        lines.append(f"last date {day.date}: {day.result} ({day.reason}){_of(day.cycle)}")
    yield from console.screen.field("PHASE", *lines)


def _of(cycle: int | None) -> str:
    return "" if cycle is None else f", cycle {cycle}"


def _queue_lines(console: Console, seen: Seen) -> Iterator[str]:
    shown = seen.health
    waits = [
        f"{queue.name}: {queue.count}{_oldest(console, queue)}"
        for queue in shown.queues
        if queue.count or queue.name in _ASKED
    ]
    parked = [f"parked: {len(shown.parked)}"] if shown.parked else []
    backoffs = [
        f"{one.job} waits after {one.failures} failed, until {console.times.both(one.until)}" for one in shown.backoffs
    ]
    yield from console.screen.field("Queues", "    ".join(waits + parked), *backoffs)


_ASKED = ("promotions", "intents")


def _oldest(console: Console, queue: Queue) -> str:
    return "" if queue.oldest is None else f" (the oldest for {span(console.now - queue.oldest)})"
