"""What a tick would do, without a byte changed: the same stages over a copy of the store, and no files.

`--dry-run`, `explain` and `forecast` look through this; what they say is what the rules would say.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import NamedTuple, assert_never

from orchestration.cycles import ledger
from orchestration.cycles.cycle import CycleState
from orchestration.cycles.orphan import record_lost
from orchestration.exits import Exit
from orchestration.intents.intent import STARTS, PendingIntent, category_of, rank
from orchestration.tick import calendar, consequences, take_in
from orchestration.tick.decision import Decision, DreamCycle, Noop, Phase, Reflection, decide
from orchestration.tick.explain import Explained, explain
from orchestration.tick.kernel import Kernel
from orchestration.tick.observation import Observation
from orchestration.tick.observe import observe
from orchestration.tick.reap import orphaned


class Preview(NamedTuple):
    """A tick that was thought through and not done."""

    seen: Observation
    decision: Decision
    explained: tuple[Explained, ...]
    reaped: tuple[int, ...]  # cycles that the tick would record as lost first
    settled: tuple[int, ...]  # finished cycles that it would settle first
    refused: tuple[str, ...]  # promotions that it would ack as invalid
    asked_for: tuple[str, ...]  # intents that rules of the observer would leave


def preview(kernel: Kernel, at: datetime | None = None) -> Preview:
    """Think one tick through at an instant (aware UTC; now when None).

    `kernel` must be a detached one: its store is written to.
    """
    if at is not None:
        kernel = kernel._replace(now=lambda: at)
    lost = orphaned(kernel)
    for cycle in lost:
        record_lost(kernel.db, cycle, now=kernel.now())
    unsettled = ledger.unsettled(kernel.db)
    for cycle in unsettled:
        with kernel.db.transaction():
            consequences.note(kernel, cycle, consequences.answered(kernel, cycle))
    asked_for = _asked_for(kernel) if at is None else ()
    found = take_in.look(kernel)
    if found.fault is not None:
        raise found.fault
    succeeded = (cycle for cycle in unsettled if cycle.state is CycleState.SUCCEEDED)
    answered = {stem for cycle in succeeded for stem in cycle.origin.promotions}
    waiting = tuple(stem for stem in found.promotions if stem not in answered)
    found = take_in.note(kernel, found._replace(promotions=waiting, valid=(), refused=()))._replace(refused=found.refused)
    pending = sorted((*found.intents.pending, *(one for one in asked_for if one.category in STARTS)), key=rank)
    found = found._replace(intents=found.intents._replace(pending=tuple(pending)))
    with kernel.db.transaction():
        calendar.account(kernel, kernel.now())
    seen = observe(kernel, found)
    return Preview(
        seen=seen,
        decision=decide(seen, kernel.policy),
        explained=explain(seen, kernel.policy),
        reaped=tuple(cycle.cycle for cycle in lost),
        settled=tuple(cycle.cycle for cycle in unsettled),
        refused=tuple(one.stem for one in found.refused),
        asked_for=tuple(one.name for one in asked_for),
    )


def _asked_for(kernel: Kernel) -> tuple[PendingIntent, ...]:
    """Return the intents that the observer would leave first, under the names of their rules."""
    from orchestration.tick import observer

    return tuple(
        PendingIntent(
            name=f"of the rule {one.rule}",
            intent_type=one.intent,
            priority=one.priority,
            category=category_of(one.intent),
            topic=one.reason,
            content_sha="",
            checksummed=True,
            since=kernel.now(),
        )
        for one in observer.asked_for(kernel)
    )


def print_preview(kernel: Kernel, refused: tuple[Exit, str, str] | None, *, as_json: bool) -> Exit:
    """Print what a tick would do now; returns the exit code that it would have."""
    if refused is not None:
        exit_code, reason, evidence = refused
        print(json.dumps({"decision": "skipped", "reason": reason, "evidence": evidence}) if as_json else evidence)
        return exit_code
    shown = preview(kernel)
    print(json.dumps(as_dict(shown)) if as_json else "\n".join(lines(shown)))
    return Exit.DONE


def as_dict(shown: Preview) -> dict[str, object]:
    """Write a preview for `--json`."""
    return {
        "decision": verb(shown.decision),
        "rules": [
            {
                "rule": one.finding.rule,
                "reason": one.finding.reason,
                "evidence": one.finding.evidence,
                "decided": one.decided,
                "asked": one.asked,
            }
            for one in shown.explained
        ],
        "first": {"lost": shown.reaped, "settled": shown.settled, "refused": shown.refused, "asked_for": shown.asked_for},
    }


def lines(shown: Preview) -> list[str]:
    """Write a preview for a person."""
    first = [
        *(f"first: cycle {cycle} would be recorded as lost, its runner is gone" for cycle in shown.reaped),
        *(f"first: cycle {cycle} would be settled" for cycle in shown.settled),
        *(f"first: promotion {stem} would be acked as invalid" for stem in shown.refused),
        *(f"first: an intent {name} would be left" for name in shown.asked_for),
    ]
    return [
        *first,
        *explained_lines(shown.explained),
        f"decision: {verb(shown.decision).upper()} (dry run: nothing was changed)",
    ]


def explained_lines(explained: tuple[Explained, ...]) -> list[str]:
    """Write the rules in order, with their evidence and which one decided."""
    return [f"{_mark(one)} {one.finding.rule:<14} {one.finding.reason:<22} {one.finding.evidence}" for one in explained]


def verb(decision: Decision) -> str:
    """Name a decision as the metrics do."""
    match decision:
        case Phase():
            return "phase"
        case DreamCycle():
            return "dream_cycle"
        case Reflection():
            return "reflection"
        case Noop():
            return "noop"
        case _:
            assert_never(decision)


def _mark(one: Explained) -> str:
    return "=>" if one.decided else "  " if one.asked else " ."
