"""`klorosctl heuristics`: which type the next PHASE is to have and why, and whether past choices can be made again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestration.operator.console import Console, json_option

if TYPE_CHECKING:
    from orchestration.phase.hints import Given, History, Replayed


@click.group()
def heuristics() -> None:
    """Look at what a PHASE is advised, and check that every advice follows from the store."""


@heuristics.command()
@json_option
@click.pass_obj
def show(console: Console) -> None:
    """Show what each PHASE type was worth, what the next PHASE would be advised now, and the newest hints given."""
    from orchestration.phase import hints as recorded

    history = _history(console)
    advised = history.advise(None, cores=recorded.cores())
    given = history.given[-1] if history.given else None
    document = {
        "next": asdict(advised),
        "phases": _phases(history),
        "last_given": None if given is None else given.document,
    }
    console.answer(document, lambda: _shown(console, document, given))


@heuristics.command()
@json_option
@click.pass_obj
def replay(console: Console) -> int:
    """Make every recorded choice again from the store; exit 1 when one comes out otherwise."""
    made = _history(console).replay()
    document = [
        {
            "cycle": one.given.cycle,
            "agrees": one.agrees,
            "phase_type": one.given.document["phase_type"],
            "again": one.again["phase_type"],
            "differs": _differs(one),
        }
        for one in made
    ]
    console.answer(document, lambda: _replayed(console, document))
    return 0 if all(one.agrees for one in made) else 1


def _history(console: Console) -> History:
    from orchestration.phase.hints import History

    with console.looking() as kernel, kernel.db.transaction(looking=True):
        history = History(kernel.db)
    history.read_reports()
    return history


def _phases(history: History) -> list[dict[str, Any]]:
    from orchestration.phase.heuristics import terms

    return [
        {"cycle": past.cycle, "phase_type": past.phase_type, "reward": round(one.reward, 6), **asdict(one)}
        for past, one in terms(history.before(None))
    ]


def _differs(one: Replayed) -> list[str]:
    return [name for name in one.again if one.again[name] != one.given.document.get(name)]


def _shown(console: Console, document: dict[str, Any], given: Given | None) -> Iterator[str]:
    advised, screen = document["next"], console.screen
    yield from screen.field("Next", f"{advised['phase_type']}: {advised['rationale']}")
    yield from screen.field("Workers", str(advised["workers_hint"]))
    yield from screen.field("Fidelity", str(advised["fidelity_hint"]))
    yield from screen.field("Passes", ", ".join(f"{name} {weight:.2f}" for name, weight in advised["pass_weights"].items()))
    for name, fidelity in advised["test_group_overrides"].items():
        yield from screen.field("Group", f"{name}: {fidelity}")
    if given is not None:
        yield from screen.field("Last given", f"{given.document['phase_type']}, to cycle {given.cycle}")
    types = [(name, *map(_number, one.values())) for name, one in advised["signals"]["types"].items()]
    yield from screen.table(("TYPE", "TRIALS", "MEAN REWARD", "SCORE"), types)
    names = ("result_yield", "novelty", "promotion", "stability", "cost", "reward")
    rows = [(str(p["cycle"]), str(p["phase_type"]), *(f"{p[name]:.3f}" for name in names)) for p in document["phases"][-20:]]
    if rows:
        yield ""
        yield from screen.table(("CYCLE", "TYPE", "YIELD", "NOVELTY", "PROMOTION", "STABILITY", "COST", "REWARD"), rows)


def _replayed(console: Console, document: list[dict[str, Any]]) -> Iterator[str]:
    if not document:
        yield "No PHASE was given hints yet."
        return
    wrong = [one for one in document if not one["agrees"]]
    for one in wrong:
        differs = ", ".join(one["differs"])
        told = f"cycle {one['cycle']} was given {one['phase_type']}; the store says {one['again']} (differs: {differs})"
        yield from console.screen.alarm(told)
    count = len(document)
    agree = f"{count - len(wrong)} of {count} choices agree with the store."
    yield agree if wrong else f"Every choice ({count}) agrees with the store."


def _number(value: float | None) -> str:
    return "none yet" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
