"""Clears away what dead processes left: cycles without a runner, foreign lock files, temporary files.

Death is told by the kernel (a lock that is free, a pid with another start time or boot), never by age.
"""

from __future__ import annotations

import json

from orchestration.cycles import ledger, orphan
from orchestration.cycles.cycle import Cycle, CycleState, JobName
from orchestration.cycles.foreign_locks import reap_foreign_locks
from orchestration.cycles.orphan import Leftover
from orchestration.host.journal import Event, Priority, log
from orchestration.store.counters import count
from orchestration.tick import litter
from orchestration.tick.kernel import Kernel

_UNREADABLE = "locks.unreadable"


def reap(kernel: Kernel) -> None:
    """Reap everything dead, and count it by kind.

    Raises:
        StoreUnreachable, Unwritable: nothing that was not reaped is counted.
    """
    for cycle in orphaned(kernel):
        if cycle.job is JobName.WAKE:
            orphan.end_turn(kernel.db, kernel.settings, cycle, now=kernel.now())
            continue
        from orchestration.cycles import sightings

        orphan.end_processes(cycle)
        seen = sightings.of_cycle(cycle, kernel.settings, within=sightings.UNDER_THE_LOCK)
        orphan.record_lost(kernel.db, cycle, now=kernel.now(), seen=seen)
    reaped = {Leftover.FOREIGN_LOCK: _foreign_locks(kernel), Leftover.TEMPORARY_FILE: litter.sweep(kernel)}
    if any(reaped.values()):
        with kernel.db.transaction():
            for kind, number in reaped.items():
                if number:
                    count(kernel.db, "kloros_orchestrator_reaped_total", number, kind=kind)


def orphaned(kernel: Kernel) -> list[Cycle]:
    """Return the cycles that stand as running on this host although no runner lives, see `cycles/orphan.py`, and turns left
    unsettled here."""
    running = [cycle for cycle in ledger.watched(kernel.db) if cycle.state is not CycleState.QUEUED]
    if not running:
        return []
    from orchestration.cycles import claims

    host = claims.here(kernel.settings)
    return [
        cycle
        for cycle in running
        if claims.is_ours(cycle, host)
        and orphan.lock_of(kernel.settings.state_dir, cycle).is_free()
        and _stands(kernel, cycle)
    ]


def _stands(kernel: Kernel, cycle: Cycle) -> bool:
    """Look again: it may have ended, and its runner too, between the two looks before."""
    now = ledger.get(kernel.db, cycle.cycle)
    return now is not None and (now.state, now.settled_at) == (cycle.state, None)


def _foreign_locks(kernel: Kernel) -> int:
    known = kernel.db.rows("facts.get", name=_UNREADABLE)
    told = json.loads(str(known[0]["value"])) if known else []
    found = reap_foreign_locks(kernel.path("locks"), told=told)
    for name in found.removed:
        log(Event.LEFTOVER_REAPED, f"locks/{name} was removed: its process is dead and holds no lock", lock=name)
    for name in found.news:
        message = f"locks/{name} is left alone: it is of no known form, so nobody can tell whether its holder lives"
        log(Event.LEFTOVER_REAPED, message, priority=Priority.WARNING, lock=name)
    if list(found.unreadable) != told:
        with kernel.db.transaction():
            kernel.db.run("facts.set", name=_UNREADABLE, value=json.dumps(found.unreadable))
    return len(found.removed)
