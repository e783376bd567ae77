"""One cycle of a given number, run directly under an output root: for CI, scripts and people, beside any orchestrator.

The root has a store of its own in `.kloros/`, and the runner is the one that ticks start, so everything that holds for a
cycle holds here. Only one such run at a time works under a root. Nothing waits for a later tick: such a cycle answers no
promotion and no PHASE date, so it is settled as soon as it has ended.

    DIR/cycle_00001/          the cycle's folder; earlier runs of the number are cycle_00001.1, .2…
    DIR/out/                  bundles
    DIR/.kloros/              the state: store, locks, signals
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from orchestration.cycles import artifacts, ledger, orphan
from orchestration.cycles.cycle import Cause, CycleEvent, CycleNumber, CycleState, Executor, JobName, Origin, Result
from orchestration.cycles.job import job
from orchestration.errors import LockHeld, StoreUnreachable, Usage
from orchestration.host import clock
from orchestration.host.lock import FileLock

if TYPE_CHECKING:
    from orchestration.cycles.cycle import Cycle
    from orchestration.settings import Settings
    from orchestration.store.port import Database

STATE = ".kloros"


class Existing(Enum):
    """What to do about a number that was run before."""

    REFUSE = "refuse"
    RESUME = "resume"  # keep the old aside, and begin with its artifacts
    REPLACE = "replace"  # keep the old aside, and begin with nothing


def variables(root: str) -> dict[str, str]:
    """Return the settings, as variables, that put a cycle under this root."""
    return {
        "KLR_STATE_DIR": os.path.join(root, STATE),
        "KLR_DATABASE_URL": "",  # a store of its own, which no other host looks into
        "KLR_CYCLES_DIR": root,
        "KLR_BUNDLES_DIR": os.path.join(root, "out"),
    }


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Hold the root for the block.

    Raises:
        LockHeld: another run is at work under it.
    """
    with FileLock(os.path.join(settings.state_dir, "locks", "direct.lock")).held("run_cycle --cycle"):
        yield


def enqueue(
    db: Database, settings: Settings, number: CycleNumber, *, name: JobName, existing: Existing, runner_lock: FileLock
) -> None:
    """Queue the cycle, and clear away what an earlier run that was killed has left. Inside `alone`.

    Raises:
        Usage: there is such a cycle, and `existing` is `REFUSE`.
        LockHeld: the processes of a run that was killed are still being ended.
    """
    for cycle in ledger.active(db):
        _end_leftover(db, cycle, runner_lock)
    found, folder = ledger.get(db, number), artifacts.cycle_dir(settings.cycles_dir, number)
    if existing is Existing.REFUSE and (found is not None or os.path.lexists(folder)):
        state = f" ({found.state})" if found is not None else ""
        raise Usage(
            f"cycle {number} was run before{state}: {folder}",
            hint="--resume goes on with its artifacts, --replace begins anew; both keep the old folder as .1, .2…",
        )
    origin = Origin(Cause.DIRECT, "", resumes=existing is Existing.RESUME)
    with db.transaction():
        ledger.forget(db, number)
        token = os.urandom(16).hex()
        own = job(name, settings)._replace(executor=Executor.LOCAL, hosts=())  # a direct run is one here and now
        ledger.enqueue(db, job=own, origin=origin, token=token, now=clock.now(), number=number)


def settle(db: Database, number: CycleNumber) -> Cycle:
    """Note that the cycle that has ended has no further consequences, and return it.

    Raises:
        StoreUnreachable: it is not there, or has not ended.
    """
    with db.transaction():
        ledger.settle(db, number, now=clock.now())
    cycle = ledger.get(db, number)
    if cycle is None or cycle.ended_at is None:
        raise StoreUnreachable(f"cycle {number} has not ended", hint="is another program at work on this output root?")
    return cycle


def number_of(source: str, text: str | None) -> CycleNumber | None:
    """Read the number of a cycle, None when none is given.

    Raises:
        Usage: it is no such number; names the source.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text)):
        raise Usage(f"{source} is {text!r}", hint="it must be a whole number from 1 on, such as 42")
    return CycleNumber(int(text))


def _end_leftover(db: Database, cycle: Cycle, runner_lock: FileLock) -> None:
    if cycle.state is CycleState.QUEUED:
        result = Result(reason="its run was ended before it started")
        with db.transaction():
            ledger.finish(db, cycle, CycleEvent.CANCEL, result, now=clock.now())
        return
    if not runner_lock.is_free():
        raise LockHeld(f"cycle {cycle.cycle} of an earlier run is still being ended", hint="try again in a few seconds")
    orphan.end_processes(cycle)
    orphan.record_lost(db, cycle, now=clock.now())
