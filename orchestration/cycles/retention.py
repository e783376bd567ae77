"""Which cycles stay on disk, and how the others go: folder and bundle are removed, the row in the store stays.

A cycle that neither its number nor its age keeps, nor a person (`ledger.over`), is held all the same while something
refers to it: the baseline, what waits in escrow, a parked promotion that it tried, the last succeeded PHASE, whose report
every ack names; and while its bundle is still to be copied to the federation's target. What is held is remembered, so that
a quiet tick need not ask again, and is looked at anew whenever something else has to go.

A folder first takes a hidden name, `.pruned_cycle_00042`, and is removed under it, in parts where it is large; the store is
told last. So nobody sees half a cycle, and killed at any point, the next tick goes on.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestration.cycles import artifacts, bundle, ledger
from orchestration.cycles.cycle import CycleNumber, JobName, folder_name
from orchestration.errors import KlorosError
from orchestration.host import files, folders
from orchestration.host.journal import Event, Priority, log
from orchestration.store.counters import count
from orchestration.store.instants import to_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from orchestration.settings import Settings
    from orchestration.store.port import Database

ENTRIES_PER_TICK: Final = 10_000  # of a cycle: about a second
_HELD: Final = "retention.held"


class Pruned(NamedTuple):
    """What became of the cycles that were looked at."""

    removed: tuple[CycleNumber, ...]
    begun: tuple[CycleNumber, ...]  # large: the next time goes on
    held: dict[CycleNumber, str]  # why
    failed: dict[CycleNumber, str]  # why


def prune(
    db: Database, settings: Settings, over: Iterable[CycleNumber], *, now: datetime, at_most: int | None = None
) -> Pruned:
    """Remove these cycles from disk, less those that something refers to. Under the tick's lock.

    Args:
        over: as `ledger.over` gives them. at_most: files and folders of each cycle to remove this time; None for all.

    Raises:
        KlorosError: the baseline can't be read, so nobody knows what it refers to; nothing was removed.
    """
    given = list(over)
    references = _References(db, settings)
    held = {cycle: why for cycle in given if (why := references.to(cycle)) is not None}
    removed, begun, failed = list[CycleNumber](), list[CycleNumber](), dict[CycleNumber, str]()
    for cycle in given:
        if cycle in held:
            continue
        try:
            done = _remove(settings, cycle, at_most)
        except (KlorosError, OSError) as error:
            failed[cycle] = str(error)
            log(Event.CYCLE_PRUNED, f"cycle {cycle} can't be pruned: {error}", priority=Priority.WARNING, cycle=cycle)
            continue
        (removed if done else begun).append(cycle)
        if done:
            _note(db, cycle, now)
    _remember(db, references, {*held, *failed})
    return Pruned(tuple(removed), tuple(begun), held, failed)


def held_among(db: Database, settings: Settings, over: Iterable[CycleNumber]) -> dict[CycleNumber, str]:
    """Say which of these cycles something refers to, and what does; changes nothing.

    Raises:
        KlorosError: the baseline can't be read.
    """
    references = _References(db, settings)
    return {cycle: why for cycle in over if (why := references.to(cycle)) is not None}


class _References:
    """What refers to cycles, as it stands now."""

    def __init__(self, db: Database, settings: Settings) -> None:
        from orchestration.baseline import escrow_ledger, history

        phase = ledger.last_succeeded(db, JobName.PHASE)
        parked = db.rows("promotions.all_parked")
        pending = db.rows("federation.pending") if settings.federation.target else []
        self._db = db
        self._pending = {row["cycle"] for row in pending}
        self._baseline = history.cycle_in_force(db, settings.state_dir)
        self._phase = None if phase is None else phase.cycle
        self._escrow = {entry.cycle: entry.entry for entry in escrow_ledger.pending(db)}
        self._parked = {str(row["stem"]) for row in parked}
        self._failed = {row["cycle"] for row in parked}

    def to(self, cycle: CycleNumber) -> str | None:
        """Return what refers to a cycle, None when nothing does."""
        if cycle == self._baseline:
            return "the baseline is of this cycle"
        if cycle == self._phase:
            return "it is the last PHASE that succeeded, and acks name its report"
        if cycle in self._escrow:
            return f"what it accepted waits for a person: klorosctl escrow show {self._escrow[cycle]}"
        if cycle in self._pending:
            return "its bundle is still to be copied: klorosctl federation status"
        if not self._parked:
            return None
        row = ledger.get(self._db, cycle)
        tried = self._parked.intersection(() if row is None else row.origin.promotions)
        if tried or cycle in self._failed:
            return f"it tried what is parked: {', '.join(sorted(tried)[:3])}"
        return None


def _remove(settings: Settings, cycle: CycleNumber, at_most: int | None) -> bool:
    """Remove folder and bundle, or a part; return whether nothing is left."""
    folder = artifacts.cycle_dir(settings.cycles_dir, cycle)
    hidden = os.path.join(settings.cycles_dir, f".pruned_{folder_name(cycle)}")
    try:
        folders.remove(hidden, at_most=at_most)
        if os.path.lexists(hidden):
            return False
        if os.path.islink(folder):
            os.unlink(folder)
        elif os.path.lexists(folder):
            os.rename(folder, hidden)
        bundle.discard(folder_name(cycle), settings.bundles_dir)
        folders.remove(hidden, at_most=at_most)
    except OSError as error:
        raise files.unwritable(str(error.filename or folder), error) from error
    return not os.path.lexists(hidden)


def _note(db: Database, cycle: CycleNumber, now: datetime) -> None:
    with db.transaction():
        if db.run("cycles.prune", cycle=cycle, now=to_text(now)):
            count(db, "kloros_cycles_pruned_total")
    log(Event.CYCLE_PRUNED, f"cycle {cycle} is gone from disk; its row stays", cycle=cycle)


def _remember(db: Database, references: _References, new: set[CycleNumber]) -> None:
    """Remember what is held: what is new, and of the others what is still referred to."""
    rows = db.rows("facts.get", name=_HELD)
    before: list[CycleNumber] = json.loads(str(rows[0]["value"])) if rows else []
    held = sorted(new | {cycle for cycle in before if references.to(cycle) is not None})
    if held != before:
        with db.transaction():
            db.run("facts.set", name=_HELD, value=json.dumps(held))
