"""`klorosctl federation`: what is copied to the canonical place, what waits and why, and having it tried now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestration.errors import Usage
from orchestration.operator.console import Console, json_option
from orchestration.operator.cycles import find, number_argument
from orchestration.operator.screen import size

if TYPE_CHECKING:
    from orchestration.cycles.cycle import Cycle

_NEWEST = 5


@click.group()
def federation() -> None:
    """Look at the copies of bundles at [federation] target, and have them tried again."""


@federation.command()
@json_option
@click.pass_obj
def status(console: Console) -> int:
    """Say what is still to be copied, since when it fails and why, and what was copied last."""
    from orchestration.cycles import federation as copies
    from orchestration.cycles.remote import public

    target = public(console.settings.federation.target)
    with console.looking() as kernel:
        pending, newest = copies.pending(kernel.db), copies.newest(kernel.db, _NEWEST)
    console.answer(
        {"target": target or None, "pending": pending, "newest": newest}, lambda: _lines(console, target, pending, newest)
    )
    return 0


@federation.command()
@number_argument
@json_option
@click.pass_obj
def retry(console: Console, *, number: str) -> int:
    """Have the bundle of cycle N copied now: one that failed and waits, one that was never asked for, or one more time."""
    from orchestration.cycles.cycle import FINISHED
    from orchestration.store.instants import to_text

    if not console.settings.federation.target:
        raise Usage("federation is off", hint="set federation.target: docs/reference/federation.md")
    with console.looking() as kernel:
        cycle = find(kernel, number)
    if cycle.state not in FINISHED or cycle.settled_at is None:
        raise Usage(f"cycle {cycle.cycle} is {cycle.state} and not settled", hint="its turn comes by itself")
    with console.acting() as kernel:
        kernel.db.run("federation.ask_again", cycle=cycle.cycle, now=to_text(kernel.now()))
        kernel.start("run_cycle")
    return _told(console, cycle)


def _told(console: Console, cycle: Cycle) -> int:
    console.note("federation retry", f"has the bundle of cycle {cycle.cycle} copied now", cycle=cycle.cycle)
    document: dict[str, Any] = {"cycle": cycle.cycle, "due": True}
    console.answer(document, lambda: [f"Cycle {cycle.cycle} is being copied. See: klorosctl federation status"])
    return 0


def _lines(console: Console, target: str, pending: list[dict[str, Any]], newest: list[dict[str, Any]]) -> list[str]:
    lines = [f"target: {target}" if target else "Federation is off: federation.target is empty."]
    if pending:
        rows = [
            (str(one["cycle"]), str(one["failures"]), console.times.both(one["due_at"]), one["error"] or "not tried yet")
            for one in pending
        ]
        lines += ["", *console.screen.table(("PENDING", "FAILURES", "NEXT TRY", "LAST ERROR"), rows)]
    elif target:
        lines.append("Nothing waits to be copied.")
    if newest:
        copied = [(str(one["cycle"]), size(one["size"]), console.times.both(one["done_at"]), one["place"]) for one in newest]
        lines += ["", *console.screen.table(("COPIED", "SIZE", "AT", "PLACE"), copied)]
    return lines
