"""An orphan: a cycle that stands as running although no runner lives. Its end is recorded as unknown.

The turns of agents (WAKE) have each a lock of its own, all other cycles share one. A runner holds its lock from before it
claims until after it has recorded the end, so whoever finds that lock free, or holds it, after having read a cycle as
running, has found an orphan; or the cycle is recorded as ended by now, and then nothing is changed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cycle, CycleEvent, CycleNumber, JobName, Result
from orchestration.host.journal import Event, Priority, log
from orchestration.host.lock import FileLock
from orchestration.store.counters import count
from orchestration.store.port import Database

if TYPE_CHECKING:
    from orchestration.cycles.sightings import Seen
    from orchestration.settings import Settings


class Leftover(StrEnum):
    """What dead processes leave behind, as the metric names it."""

    CYCLE = "cycle"
    FOREIGN_LOCK = "foreign_lock"
    TEMPORARY_FILE = "temporary_file"


_WHY = "its runner is gone: killed, crashed, or the host was restarted; how far it came is unknown"


def lock_of(state_dir: str, cycle: Cycle) -> FileLock:
    """Return the lock that whoever runs this cycle holds."""
    return lock_of_turn(state_dir, cycle.cycle) if cycle.job is JobName.WAKE else FileLock(_path(state_dir, "runner.lock"))


def lock_of_turn(state_dir: str, cycle: CycleNumber) -> FileLock:
    """Return the lock of a WAKE cycle."""
    return FileLock(_path(state_dir, "wake", f"{cycle}.lock"))


def session_lock(state_dir: str, session: str) -> FileLock:
    """Return the lock that the one writer of a runtime's session on this host holds; it stays."""
    import hashlib

    return FileLock(_path(state_dir, "sessions", f"{hashlib.sha256(session.encode()).hexdigest()[:32]}.lock"))


def turn_locks(state_dir: str) -> list[FileLock]:
    """Return the locks of the WAKE cycles that run, or were lost."""
    try:
        return [FileLock(_path(state_dir, "wake", name)) for name in os.listdir(_path(state_dir, "wake"))]
    except FileNotFoundError:
        return []


def remove_lock(lock: FileLock) -> None:
    """Remove the lock file of a WAKE cycle that has ended: nobody claims an ended cycle, whatever lock he holds."""
    with suppress(OSError):
        os.unlink(lock.path)


def _path(state_dir: str, *names: str) -> str:
    return os.path.join(state_dir, "locks", *names)


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


def end_turn(db: Database, settings: Settings, cycle: Cycle, *, now: datetime) -> None:
    """Do what a WAKE cycle's dead runner came not to: end what runs, record the end as unknown, settle."""
    from orchestration.cycles import artifacts, products
    from orchestration.errors import Unwritable
    from orchestration.host import files

    if cycle.ended_at is None:
        end_processes(cycle)
        record_lost(db, cycle, now=now)
    ended = ledger.get(db, cycle.cycle)
    if ended is None or ended.ended_at is None:
        return
    folder = artifacts.cycle_dir(settings.cycles_dir, cycle.cycle)
    with suppress(Unwritable):  # a copy for people; the store is what counts
        artifacts.write_manifest(settings.cycles_dir, ended, products.get(db, cycle.cycle))
        files.sweep(folder, os.listdir(folder))
    settle_turn(db, settings, cycle.cycle, now=now)


def settle_turn(db: Database, settings: Settings, cycle: CycleNumber, *, now: datetime) -> None:
    """Note that nothing is left to do for a WAKE cycle."""
    remove_lock(lock_of_turn(settings.state_dir, cycle))  # first: nobody looks for the lock of a settled one
    with db.transaction():
        ledger.settle(db, cycle, now=now)
