"""`klorosctl readiness`: was the loop stable for a week, so that it can be relied on alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import click

from orchestration.exits import Exit
from orchestration.operator.console import Console, json_option
from orchestration.operator.screen import span
from orchestration.pulse.evidence import TICKS_MISSED
from orchestration.tick.stability import Stability, Verdict, examine

_NAMES = {
    "failed_ticks": "no failed tick",
    "pauses": "no long pause",
    "phase_dates": "every PHASE date accounted for",
    "lost_cycles": "no lost cycle",
}


@click.command()
@click.option("--days", type=click.IntRange(1, 365), default=7, show_default=True, help="For so many days until now.")
@click.option(
    "--pause",
    type=click.FloatRange(1, 1440),
    default=TICKS_MISSED.total_seconds() / 60,
    show_default=True,
    help="Minutes between two ticks that are no fault yet; more where ticks come less often than every minute.",
)
@json_option
@click.pass_obj
def readiness(console: Console, *, days: int, pause: float) -> int:
    """Say whether the loop was stable: no failed tick, no pause, every PHASE date accounted for, no cycle lost.

    Exit code 0 when it was for all the days, 1 when something speaks against it, or the history is shorter.
    """
    with console.looking() as kernel:
        found = examine(kernel, length=timedelta(days=days), longest_pause=timedelta(minutes=pause), now=console.now)
    verdict = found.verdict
    document = {
        "ready": verdict is Verdict.READY,
        "verdict": verdict,
        "days": days,
        "since": found.since,
        "until": found.until,
        "history_since": found.history_since,
        "ready_at": found.ready_at if verdict is Verdict.NOT_YET else None,
        "signs": [sign._asdict() for sign in found.signs],
    }
    console.answer(document, lambda: _lines(console, found, days))
    return Exit.DONE if verdict is Verdict.READY else Exit.FAILED


def _lines(console: Console, found: Stability, days: int) -> Iterator[str]:
    screen, times = console.screen, console.times
    width = max(len(text) for text in _NAMES.values())
    for sign in found.signs:
        state = screen.state("ok" if sign.fine else "error", f"{'ok' if sign.fine else 'fault':<5}")
        yield f"{state}  {_NAMES[sign.name]:<{width}}  {sign.evidence}"
        if sign.first:
            more = f", the first of {sign.faults}" if sign.faults > 1 else ""
            yield from screen.wrap(f"{sign.first}{more}", first=" " * 9, rest=" " * 9)
    if found.signs:
        yield ""
    if found.verdict is Verdict.READY:
        yield screen.heading(f"Ready: the loop was stable for {days} days.")
    elif found.verdict is Verdict.NOT_READY:
        yield screen.heading(f"Not ready: see the faults of the last {days} days.")
    elif found.history_since is None or found.ready_at is None:
        yield screen.heading("Not yet: there was no tick so far.")
    else:
        began, due = times.both(found.history_since, seconds=False), times.both(found.ready_at, seconds=False)
        yield screen.heading(f"Not yet: the history begins {began}, {span(found.until - found.history_since)} ago.")
        yield f"If nothing goes wrong, it is ready {due}."
