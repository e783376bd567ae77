"""`klorosctl autonomous`: the D-REAM of the old set-up that starts by itself, found and switched off.

Together with ticks it would run D-REAM twice, on the same GPU and the same promotions.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import click

from orchestration.errors import KlorosError, Unwritable
from orchestration.operator import autonomous_units, cron_lines, units
from orchestration.operator.autonomous_units import Unit
from orchestration.operator.check import Check, Level
from orchestration.operator.console import Console, json_option

_LATE = 120.0  # seconds that stopping a unit may take


class Starter(NamedTuple):
    """One thing that starts it."""

    kind: str  # unit, cron
    name: str
    evidence: str
    off: str  # the command for a person
    switch_off: Callable[[], None]


def find(root: str = "/", *, uid: int | None = None) -> list[Starter]:
    """Look for everything that is on; as root in everybody's units and tables."""
    me = os.geteuid() if uid is None else uid
    by_unit = [_unit(unit, me) for one in autonomous_units.managers(root, uid=me) for unit in autonomous_units.units(one)]
    return by_unit + [_cron(line, me) for line in cron_lines.cron_lines(root, uid=me)]


def checks(found: Sequence[Starter]) -> Iterator[Check]:
    """Tell the doctor."""
    for starter in found:
        evidence = f"{starter.name} starts D-REAM by itself, beside the ticks: {starter.evidence}"
        yield Check("autonomous", Level.WARNING, evidence, f"{starter.off}; all at once: klorosctl autonomous disable")
    if not found:
        blind = "; your cron table can't be read from here" if cron_lines.is_blind() else ""
        yield Check("autonomous", Level.OK, f"no unit and no cron line starts D-REAM by itself{blind}")


@click.group()
def autonomous() -> None:
    """Find the D-REAM of the old set-up that starts by itself, and switch it off."""


@autonomous.command("list")
@json_option
@click.pass_obj
def list_(console: Console) -> None:
    """List the units and cron lines that start it, each with the command that switches it off.

    As root it looks at everybody's units and tables, else at the host's and your own.
    """
    found = find()
    console.answer([_document(starter) for starter in found], lambda: _lines(console, found))


@autonomous.command()
@click.option("--yes", is_flag=True, help="Do it. Without it: ask on a terminal, else only list.")
@json_option
@click.pass_obj
def disable(console: Console, *, yes: bool) -> int:
    """Switch all of it off, after listing it. Units are stopped and disabled, cron lines become comments."""
    found = find()
    if not console.as_json:
        console.screen.print(_lines(console, found))
    agreed = bool(found) and (yes or _agreed(console))
    faults = list(_switch_off(console, found)) if agreed else []
    left = find() if agreed else found
    document: dict[str, Any] = {
        "done": agreed and not faults,
        "found": [_document(starter) for starter in found],
        "faults": faults,
        "left": [_document(starter) for starter in left],
    }
    console.answer(document, lambda: _ended(console, found, faults, agreed=agreed))
    return 1 if faults else 0


def _unit(unit: Unit, uid: int) -> Starter:
    own = "--user" in unit.off and "runuser" not in unit.off
    command = shlex.join(unit.off)
    off = command if own or uid == 0 else f"sudo {command}"
    evidence = f"{unit.path} is {unit.state}; known by {unit.sign}"
    return Starter("unit", unit.name, evidence, off, lambda: _run(unit.off, off))


def _cron(line: cron_lines.CronLine, uid: int) -> Starter:
    sudo = "" if uid == 0 or line.own else "sudo "
    off = f"{sudo}{line.off}"
    evidence = f"it runs {line.sign}: {line.text.strip()}"
    return Starter("cron", line.where, evidence, off, lambda: cron_lines.switch_off(line))


def _run(command: Sequence[str], off: str) -> None:
    code, out, err = units.ask(command, seconds=_LATE)
    if code:
        raise Unwritable(f"{shlex.join(command)}: {err or out}", hint=off)


def _switch_off(console: Console, found: Iterable[Starter]) -> Iterator[str]:
    """Switch each off; give what could not be, and go on with the others."""
    for starter in found:
        try:
            starter.switch_off()
        except (KlorosError, OSError) as error:
            yield f"{starter.name}: {error.message if isinstance(error, KlorosError) else error}; try: {starter.off}"
        else:
            console.note("autonomous disable", f"switched off {starter.name}")


def _agreed(console: Console) -> bool:
    if console.as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return click.confirm("Switch all of it off?", default=False)


def _document(starter: Starter) -> dict[str, str]:
    return {"kind": starter.kind, "name": starter.name, "evidence": starter.evidence, "off": starter.off}


def _lines(console: Console, found: Sequence[Starter]) -> Iterator[str]:
    for starter in found:
        yield console.screen.heading(starter.name)
        yield from console.screen.wrap(starter.evidence, first="    ", rest="    ")
        yield from console.screen.wrap(starter.off, first="    off: ", rest="         ")
    if not found:
        yield "Nothing starts D-REAM by itself here."


def _ended(console: Console, found: Sequence[Starter], faults: Sequence[str], *, agreed: bool) -> Iterator[str]:
    for fault in faults:
        yield from console.screen.alarm(fault)
    if agreed:
        yield f"Switched off: {len(found) - len(faults)} of {len(found)}."
    elif found:
        yield "Nothing has been changed. To do it: klorosctl autonomous disable --yes"
