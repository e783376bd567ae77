"""An orphan: a cycle that stands as running although no runner lives. Its end is recorded as unknown.

A runner holds its lock from before it claims until after it has recorded the end, so whoever finds that lock free, or holds
it, after having read a cycle as running, has found an orphan; or the cycle is recorded as ended by now, and then nothing is
changed.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cycle, CycleEvent, Result
from orchestration.host.journal import Event, Priority, log
from orchestration.store.counters import count
from orchestration.store.port import Database

if TYPE_CHECKING:
    from orchestration.cycles.sightings import Seen


class Leftover(StrEnum):
    """What dead processes leave behind, as the metric names it."""

    CYCLE = "cycle"
    FOREIGN_LOCK = "foreign_lock"
    TEMPORARY_FILE = "temporary_file"


_WHY = "its runner is gone: killed, crashed, or the host was restarted; how far it came is unknown"


def end_processes(cycle: Cycle) -> None:
    """End what the dead runner left running, told by the cycle's mark, and report the loss."""
    from orchestration.host.process import kill_marked

    killed = kill_marked(cycle.token)
    told = f"cycle {cycle.cycle} ({cycle.job}) is lost: {_WHY}; {killed} processes of it ended"
    log(Event.CYCLE_LOST, told, priority=Priority.ERROR, cycle=cycle.cycle)


def record_lost(db: Database, cycle: Cycle, *, now: datetime, seen: Seen | None = None) -> None:
    """Record that the cycle's end is unknown, count it, and note what the observer's rules saw in its output."""
    with db.transaction():
        if ledger.finish(db, cycle, CycleEvent.LOSE, Result(reason=_WHY), now=now):
            count(db, "kloros_orchestrator_reaped_total", kind=Leftover.CYCLE)
            if seen is not None:
                from orchestration.cycles import sightings

                sightings.note(db, cycle.cycle, seen)
