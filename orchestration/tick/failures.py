"""Promotions that a finished cycle leaves without an answer: each goes again, and is parked after too many failures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from orchestration.cycles.cycle import Cycle, CycleState, end_of
from orchestration.host import files
from orchestration.host.journal import Event, Priority, log
from orchestration.promotions import ledger as promotions
from orchestration.promotions.state import PromotionState
from orchestration.promotions.verdict import Answer
from orchestration.tick.kernel import Kernel

_NOT_TRIED = "nothing tells that it was tried: it is not in the cycle's promotions.json"


def parking(kernel: Kernel, cycle: Cycle, answers: Iterable[Answer], hindrance: str) -> dict[str, str]:
    """Return which promotions the failure parks, and what to tell people of each; reads, changes nothing."""
    stems = _unanswered(cycle, answers)
    if not stems:
        return {}
    limit = kernel.settings.dream.park_after
    return {
        one.stem: f"promotion {one.stem} is parked after {one.failures + 1} failed cycles in a row, the last: "
        f"{_failure_of(cycle, hindrance)}; klorosctl promotions retry|reject {one.stem}"
        for one in promotions.known(kernel.db, stems).values()
        if one.state is PromotionState.UNACKED and one.cycle != cycle.cycle and one.failures + 1 >= limit
    }


def write_alerts(kernel: Kernel, cycle: Cycle, parked: Mapping[str, str]) -> None:
    """Add a line for each parked promotion to `alerts.jsonl`, unless an earlier tick has.

    Raises:
        Unwritable: the disk is full, or the file not ours.
    """
    path = kernel.path("alerts.jsonl")
    for stem, message in parked.items():
        ended = int(end_of(cycle).timestamp())
        alert = {"ts": ended, "kind": "promotion_parked", "promotion": stem, "cycle": cycle.cycle, "message": message}
        line = json.dumps(alert)
        if not files.has_line(path, line):
            files.append_line(path, line)


def note(kernel: Kernel, cycle: Cycle, answers: Iterable[Answer], hindrance: str) -> None:
    """Count the failure of each promotion without an answer. Inside a transaction."""
    stems = _unanswered(cycle, answers)
    if not stems:
        return
    promotions.fail(
        kernel.db,
        stems,
        cycle=cycle.cycle,
        reason=_failure_of(cycle, hindrance),
        park_after=kernel.settings.dream.park_after,
        at=kernel.now(),
    )


def tell(cycle: Cycle, parked: Mapping[str, str]) -> None:
    """Say which promotions are parked."""
    for stem, message in parked.items():
        log(Event.PROMOTION_PARKED, message, priority=Priority.ERROR, promotion=stem, cycle=cycle.cycle)


def _unanswered(cycle: Cycle, answers: Iterable[Answer]) -> frozenset[str]:
    """Return the stems for which the cycle counts as a failure; what a person cancelled counts against nothing."""
    if cycle.state is CycleState.CANCELLED:
        return frozenset()
    return frozenset(cycle.origin.promotions) - {answer.stem for answer in answers}


def _failure_of(cycle: Cycle, hindrance: str) -> str:
    said = "" if cycle.result is None else cycle.result.reason
    return f"cycle {cycle.cycle} {cycle.state}: {hindrance or (_NOT_TRIED if cycle.state is CycleState.SUCCEEDED else said)}"
