"""Taking over: first the plan, which changes nothing, then what it says, in an order that a kill can't turn into harm.

Owns the order: acks come first, so that no promotion that was answered is run again, and intents last, for they start
things. The store's part is one transaction. Whatever was done is found there by the next plan, so a run that was killed
is finished by the next one, and one more does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date, datetime

from orchestration.baseline import copies
from orchestration.errors import Malformed
from orchestration.host import files
from orchestration.legacy import filed, versions
from orchestration.legacy.epoch import parse_epoch
from orchestration.legacy.item import Copy, Draft, Fate, Item, Kind, Step, refused, taking, there
from orchestration.legacy.tree import Found, Tree
from orchestration.tick import calendar
from orchestration.tick.calendar import DateResult, PhaseDate
from orchestration.tick.kernel import Kernel

REASON = "taken_over"
"""Why a date counts that another program accounted for."""


def plan(kernel: Kernel, tree: Tree, now: datetime) -> list[Step]:
    """Say what becomes of everything in the tree, in the order in which it is done. `now` is aware UTC."""
    return [
        *filed.plan_acks(kernel, tree.acks),
        *versions.plan_versions(kernel, tree),
        *([] if tree.epochs is None else _plan_epochs(kernel, tree.epochs, now)),
        *filed.plan_signals(kernel, tree.signals, now),
        *filed.plan_intents(kernel, tree.intents, now),
    ]


def apply(kernel: Kernel, steps: Sequence[Step], now: datetime) -> list[Item]:
    """Do what was planned, under the tick's lock; return what became of each item.

    Raises:
        Unwritable, StoreUnreachable: what was done until then stays; run again, it goes on there.
    """
    _copy(steps, Kind.ACK)
    with kernel.db.transaction():
        versions.commit(kernel, [step.work for step in steps if isinstance(step.work, Draft)])
        for day in (step.work for step in steps if isinstance(step.work, PhaseDate)):
            calendar.take_over(kernel.db, day, now)
    copies.bring_up(kernel.db, kernel.path("baseline"))
    _copy(steps, Kind.SIGNAL)
    _copy(steps, Kind.INTENT)
    return [step.item if step.work is None else step.item._replace(fate=Fate.TAKEN_OVER) for step in steps]


def _copy(steps: Sequence[Step], kind: Kind) -> None:
    for step in steps:
        if step.item.kind is kind and isinstance(step.work, Copy):
            files.make_folder(os.path.dirname(step.work.path))
            files.create(step.work.path, step.work.data, step.work.mode, changed_at=step.work.changed_at)


def _plan_epochs(kernel: Kernel, found: Found, now: datetime) -> list[Step]:
    if found.fault:
        return [refused(Kind.EPOCH, found.name, found.fault)]
    steps: list[Step] = []
    seen: set[date] = set()
    for at, line in enumerate(found.data.split(b"\n"), start=1):
        if line.strip():
            steps.append(_plan_epoch(kernel, line, f"{found.name}:{at}", seen, now))
    return steps


def _plan_epoch(kernel: Kernel, line: bytes, place: str, seen: set[date], now: datetime) -> Step:
    try:
        epoch = parse_epoch(line, kernel.window, now)
    except Malformed as error:
        return refused(Kind.EPOCH, place, error.message)
    name = f"{epoch.epoch_id} for {epoch.day}"
    recorded = calendar.get(kernel.db, epoch.day)
    if epoch.day in seen or (recorded is not None and recorded.result is DateResult.SUCCEEDED):
        return there(Kind.EPOCH, name, f"{epoch.day} has its PHASE")
    seen.add(epoch.day)
    window = kernel.window.on(epoch.day)
    evidence = f"epoch {epoch.epoch_id} of the older orchestrator"
    day = PhaseDate(epoch.day, DateResult.SUCCEEDED, REASON, evidence, None, window.opens, window.closes)
    today = "counts for today: no PHASE runs any more" if epoch.day == _today(kernel, now) else ""
    return taking(Kind.EPOCH, name, day, today)


def _today(kernel: Kernel, now: datetime) -> date:
    open_now = kernel.window.containing(now)
    return kernel.window.next_after(now).date if open_now is None else open_now.date
