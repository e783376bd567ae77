"""`klorosctl pulse`: the page of the loop's health, as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestration.operator.console import Console, json_option
from orchestration.operator.screen import size

if TYPE_CHECKING:
    from orchestration.pulse.loop_health import LoopHealth


@click.group()
def pulse() -> None:
    """Write the page that shows how the loop is."""


@pulse.command()
@click.option("--out", required=True, metavar="DIR", help="Folder for index.html and data/dashboard.json; made if absent.")
@click.option("--cycles", metavar="DIR", help="Show the cycle_NNNNN folders in DIR, without any store.")
@json_option
@click.pass_obj
def build(console: Console, *, out: str, cycles: str | None) -> None:
    """Write the page as one file that opens from disk, and its data beside it.

    It only looks: the loop may run or not. Each file is replaced in one step; one that is there keeps its permissions,
    a new one is for its owner alone, for it shows what commands wrote.
    """
    from orchestration.pulse import builder

    health = _of_store(console) if cycles is None else _of_tree(console, cycles)
    built = builder.build(health, out)
    document = {"verdict": health.judgement.verdict, "files": [one._asdict() for one in built]}
    console.answer(document, lambda: [f"{one.path}  {size(one.size)}" for one in built])


def _of_store(console: Console) -> LoopHealth:
    from orchestration.pulse import builder
    from orchestration.pulse.survey import survey

    with console.looking() as kernel:
        return survey(
            console.settings,
            kernel.db,
            console.now,
            boot_id=kernel.boot_id,
            cycles=builder.CYCLES,
            failures=builder.FAILURES,
        )


def _of_tree(console: Console, folder: str) -> LoopHealth:
    from orchestration.pulse import builder
    from orchestration.pulse.tree import survey_tree

    return survey_tree(folder, console.now, cycles=builder.CYCLES, failures=builder.FAILURES)
