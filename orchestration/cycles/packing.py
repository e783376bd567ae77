"""The bundles of finished cycles, made without being asked for: `[cycles] bundle`.

A cycle's end is committed together with the wish for its bundle, so the result never depends on it. Whoever ran the cycle
makes the bundle next, without the runner's lock; when it is killed before, or could not, a tick has a runner started for it
as for a queued cycle. A failure changes nothing about its cycle, and is tried again after a wait that grows to a day.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from orchestration.cycles import artifacts, bundle, claims, ledger
from orchestration.cycles.backoff import Backoff
from orchestration.cycles.cycle import Cause, Cycle, CycleNumber, Packed, folder_name
from orchestration.errors import KlorosError, LockHeld, StoreUnreachable
from orchestration.host import clock
from orchestration.host.journal import Event, Priority, log
from orchestration.host.lock import FileLock
from orchestration.store.counters import count
from orchestration.store.instants import from_text, to_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.settings import Settings
    from orchestration.store.port import Database, Row

RUNNERS_TURN: Final = timedelta(minutes=2)  # in which a tick starts nobody, for the runner of the cycle is at it
BACKOFF: Final = Backoff(tuple(timedelta(minutes=wait) for wait in (1, 5, 30, 6 * 60, 24 * 60)))
_LONGEST: Final = timedelta(days=1, minutes=5)
_LONGEST_ERROR: Final = 500  # characters


class Stopped(Exception):
    """Whoever makes the bundle was asked to stop; it is made another time."""


def ask(db: Database, settings: Settings, cycle: Cycle, *, due: datetime) -> None:
    """Note that a cycle's bundle is wanted, unless bundles are off. Inside the transaction that ends or settles it.

    A cycle that never started has nothing to put into one; a direct run makes its own; of an agent's turn there is none, for
    what is said in a thread stays where the thread's retention finds it.
    """
    if settings.cycles.bundle and cycle.started_at is not None and cycle.origin.cause not in (Cause.DIRECT, Cause.WAKE):
        db.run("bundles.ask", cycle=cycle.cycle, due_at=to_text(due))


def pack(db: Database, settings: Settings, *, should_stop: Callable[[], bool] = lambda: False) -> int:
    """Make every bundle that is wanted, oldest first, until a cycle is queued or we are asked to stop; return how many.

    Comes back at once when another process is at it. `should_stop` is asked after every megabyte.

    Raises:
        StoreUnreachable, Unwritable: our own store or state folder. What hinders a bundle is noted, never raised.
    """
    made, now = 0, clock.now()
    if not db.rows("bundles.next", now=to_text(now), longest=to_text(now + _LONGEST)):
        return 0
    try:
        with FileLock(os.path.join(settings.state_dir, "locks", "bundles.lock")).held("bundles"):
            for row in db.rows("bundles.next", now=to_text(now), longest=to_text(now + _LONGEST)):
                if should_stop() or claims.is_waiting(ledger.active(db), settings):
                    break
                made += _attempt(db, settings, row, should_stop)
    except Stopped:
        pass
    except LockHeld as error:
        log(Event.RUNNER_IDLE, f"another process is making bundles: {error.message}", priority=Priority.DEBUG)
    return made


def pending(db: Database) -> list[dict[str, Any]]:
    """Return what is still to be made, oldest first, for people."""
    return [_shown(row) for row in db.rows("bundles.pending")]


def of(db: Database, cycle: CycleNumber) -> dict[str, Any] | None:
    """Return what is known of one cycle's bundle, for people; None when nobody wanted one."""
    return next((_shown(row) for row in db.rows("bundles.get", cycle=cycle)), None)


def _shown(row: Row) -> dict[str, Any]:
    found = {name: row[name] for name in ("cycle", "failures", "error", "sha256", "size")}
    return found | {"due_at": from_text(str(row["due_at"])), "made": row["done_at"] is not None}


def _attempt(db: Database, settings: Settings, row: Row, should_stop: Callable[[], bool]) -> bool:
    """Make one bundle and note what came of it; return whether there is one now."""
    number = cast("CycleNumber", row["cycle"])

    def progress(_bytes: int) -> None:
        if should_stop():
            raise Stopped

    try:
        made = _make(settings, number, progress)
    except StoreUnreachable:
        raise
    except (KlorosError, OSError) as error:
        _note_failure(db, number, int(str(row["failures"])) + 1, str(error))
        return False
    sha256, size = ("", 0) if made is None else (made.sha256, made.size)
    with db.transaction():
        if db.run("bundles.done", cycle=number, sha256=sha256, size=size, now=to_text(clock.now())):
            count(db, "kloros_bundles_total", result=Packed.SKIPPED if made is None else Packed.MADE)
    if made is not None:
        left_out = "".join(f"; left out: {path}: {why}" for path, why in made.left_out[:3])
        log(Event.CYCLE_PACKED, f"cycle {number}: its bundle is {made.path}{left_out}", cycle=number)
    return made is not None


def _make(settings: Settings, number: CycleNumber, progress: Callable[[int], None]) -> bundle.Made | None:
    """Make it; None when the cycle left no folder, or has been pruned meanwhile."""
    folder = artifacts.cycle_dir(settings.cycles_dir, number)
    if not os.path.isdir(folder):
        return None
    try:
        made = bundle.make(folder, settings.bundles_dir, progress=progress)
    except KlorosError:
        if not os.path.isdir(folder):
            return None
        raise
    if not os.path.isdir(folder):
        bundle.discard(folder_name(number), settings.bundles_dir)
        return None
    return made


def _note_failure(db: Database, number: CycleNumber, failures: int, why: str) -> None:
    due = clock.now() + BACKOFF.after(failures)
    with db.transaction():
        db.run("bundles.fail", cycle=number, failures=failures, due_at=to_text(due), error=why[:_LONGEST_ERROR])
        count(db, "kloros_bundles_total", result=Packed.FAILED)
    told = f"cycle {number} has no bundle: {why}; again at {to_text(due)}, or: klorosctl bundle make {number}"
    log(Event.CYCLE_PACKED, told, priority=Priority.WARNING, cycle=number)
