"""`klorosctl tick` and `klorosctl explain`: one tick done, and one thought through."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import click

from orchestration import wiring
from orchestration.errors import Usage
from orchestration.operator.console import Console, json_option
from orchestration.tick.preview import Preview, as_dict, preview, verb

FARTHEST = timedelta(days=3660)
"""Every date up to the instant is accounted for, at about 0.1 ms each: as far as `forecast` goes."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Decide and print; change no byte anywhere.")
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for the cycle that is started or at work, and for a tick at work before it; exit with its code.",
)
@json_option
@click.pass_obj
def tick(console: Console, *, dry_run: bool, wait: bool) -> int:
    """Do one tick now: look, decide, start what is due, record.

    The same as python -m orchestration.run_once, with the variables that the installed unit gives its ticks.
    """
    from orchestration import run_once

    flags = {"--dry-run": dry_run, "--wait": wait, "--json": console.as_json}
    if not dry_run:
        console.note("tick", "asks for a tick")
    return run_once.main([flag for flag, given in flags.items() if given], console.environ)


@click.command()
@click.option("--at", "at", metavar="TIME", help="Another instant: ISO 8601. Without an offset: local to the window.")
@json_option
@click.pass_obj
def explain(console: Console, *, at: str | None) -> None:
    """Show every rule in order, what it sees, and which one decides.

    With --at: what a tick at that instant would decide, with the files and cycles of now.
    """
    from orchestration.tick.gate import gate

    zone = console.settings.phase.time_zone
    instant = console.now if at is None else read_instant(at, zone, now=console.now)
    with console.trying() as kernel:
        shown = preview(kernel._replace(now=lambda: instant), at=None if at is None else instant)
        refused = gate(console.settings) or wiring.standing_by(console.settings)
        document = {
            "at": instant,
            **as_dict(shown),
            "refused": None if refused is None else {"reason": refused[1], "evidence": refused[2]},
        }
        console.answer(document, lambda: _lines(console, shown, instant, refused and refused[2]))


def read_instant(text: str, zone: str, *, now: datetime) -> datetime:
    """Read ISO 8601; without an offset it is local to `zone`, where it must be exactly one instant.

    Raises:
        Usage: it is no time, one that is too far from `now`, or a local time that a clock change leaves out or repeats.
    """
    try:
        instant = _read_instant(text, zone)
        near = abs(instant - now) <= FARTHEST
    except OverflowError:  # within a day of the first or the last date that Python knows
        near = False
    if not near:
        raise Usage(f"--at {text!r} is more than {FARTHEST.days} days away", hint="name a nearer time")
    return instant


def _read_instant(text: str, zone: str) -> datetime:
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(
            f"--at {text!r} is not a time", hint="write 2026-11-21T03:05, local to the window, or 2026-11-21T08:05:00Z"
        ) from None
    if read.tzinfo is not None:
        return read.astimezone(UTC)
    first, second = (read.replace(tzinfo=ZoneInfo(zone), fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():
        exists = first.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) == read
        what = "is there twice" if exists else "does not exist"
        raise Usage(
            f"--at {text!r} {what} in {zone}: the clocks change then",
            hint=f"say which: {first.isoformat()} or {second.isoformat()}",
        )
    return first.astimezone(UTC)


def _lines(console: Console, shown: Preview, at: datetime, refused: str | None) -> Iterator[str]:
    screen = console.screen
    yield screen.heading(f"A tick at {console.times.both(at)}")
    if refused:
        yield from screen.alarm(f"No tick would get this far: {refused}. If it did:")
    for number in shown.reaped:
        yield from screen.wrap(f"first: cycle {number} is recorded as lost, its runner is gone", rest="       ")
    for number in shown.settled:
        yield from screen.wrap(f"first: cycle {number} is settled", rest="       ")
    for stem in shown.refused:
        yield from screen.wrap(f"first: promotion {stem} is acked as invalid", rest="       ")
    yield ""
    for number, one in enumerate(shown.explained, start=1):
        mark = "=>" if one.decided else "  "
        head = f"{mark} {number} {one.finding.rule:<14} {one.finding.reason}"
        note = "" if one.asked else "  (not asked: decided above)"
        yield screen.style(head + note, fg="green" if one.decided else None, bold=one.decided, dim=not one.asked)
        yield from screen.wrap(one.finding.evidence, first=" " * 20, rest=" " * 20)
    yield ""
    yield screen.heading(f"Decision: {verb(shown.decision).upper()}")
