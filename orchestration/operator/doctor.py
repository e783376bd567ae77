"""`klorosctl doctor`: is everything there that ticks and cycles need, and what to do where it is not.

It asks and changes nothing; it is also the default PHASE, so its warnings are no failure (exit 0), its errors are (1).
The checks are in `checks.py` and `host_checks.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from orchestration.errors import KlorosError, StoreUnreachable
from orchestration.exits import Exit
from orchestration.operator import autonomous, checks, host_checks, rollout
from orchestration.operator.check import Check, Level
from orchestration.operator.console import Console, json_option
from orchestration.pulse import away
from orchestration.tick.kernel import Kernel


@click.command()
@json_option
@click.pass_obj
def doctor(console: Console) -> int:
    """Check folders, locks, store, baseline, zone, clock, units, metrics, runner, disk, other starters of D-REAM.

    Exit code 0 when all is well or only warnings are there, 1 when something is broken.
    """
    found = list(_examine(console))
    broken = any(one.level is Level.ERROR for one in found)
    document = {"healthy": not broken, "checks": [one._asdict() for one in found]}
    console.answer(document, lambda: _lines(console, found))
    return Exit.FAILED if broken else Exit.DONE


def _examine(console: Console) -> Iterator[Check]:
    settings = list(checks.settings(console))
    yield from settings
    if any(one.level is Level.ERROR for one in settings):
        return  # everything else depends on them
    starters = autonomous.find()  # as root of everybody; the owner of the state sees their own
    console.become_owner()
    yield from checks.folders(console)
    yield from checks.locks(console)
    try:
        with console.looking() as kernel:
            store = list(_store(console, kernel))
            state = [
                *checks.running(console, kernel),
                *checks.needs(console),
                *checks.slurm(console, kernel),
                *checks.ticks(console, kernel),
                *checks.queues(console, kernel),
            ]
            state += [*checks.baseline(kernel), *checks.notices(console, kernel)]
    except KlorosError as error:
        if isinstance(error, StoreUnreachable):
            error = away.explained(console.settings, error, console.now)
        yield Check("store", Level.ERROR, error.message, " ".join(error.hint.split()))
    else:
        yield from (*store, *state)
    yield from host_checks.zone(console)
    yield from host_checks.clock_synchronised(console)
    yield from host_checks.units(console)
    yield from rollout.interrupted()
    yield from autonomous.checks(starters)
    yield from host_checks.textfile(console)
    yield from host_checks.journal()
    yield from host_checks.space(console)


def _store(console: Console, kernel: Kernel) -> Iterator[Check]:
    if console.settings.database_url:
        from orchestration.operator import scope_checks

        return scope_checks.checks(console, kernel)
    return checks.store(console, kernel)


def _lines(console: Console, found: list[Check]) -> Iterator[str]:
    screen = console.screen
    width = max(len(one.name) for one in found)
    pad = " " * (width + 11)
    for one in found:
        head = f"{screen.state(one.level, f'{one.level:<7}')}  {one.name:<{width}}  "
        first, *rest = screen.wrap(one.evidence, first=pad, rest=pad)
        yield head + first[len(pad) :]
        yield from rest
        if one.advice:
            yield from screen.wrap(one.advice, first=f"{pad}do: ", rest=f"{pad}    ")
    numbers = {level: sum(one.level is level for one in found) for level in Level}
    yield ""
    errors, warnings = numbers[Level.ERROR], numbers[Level.WARNING]
    yield screen.heading(f"{_number(errors, 'error')}, {_number(warnings, 'warning')}, {numbers[Level.OK]} ok")


def _number(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
