"""Lets go of what only history needs, once it is old: ticks, processed intents, signals of PHASEs, files of versions.

A little each time, for `tick.prune` asks every tick until nothing is left, and then once an hour. The newest ticks stay
whatever their age, so that a clock that was ahead for an hour takes no history with it; so do the signal of the last PHASE
that succeeded, which acks name, and intents within the time in which the same one would be dropped.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Final, NamedTuple

from orchestration.baseline import copies
from orchestration.cycles import ledger as cycles
from orchestration.host.journal import Event, Priority, log
from orchestration.phase.epoch import SIGNAL_PREFIX
from orchestration.store.instants import to_text
from orchestration.tick.kernel import Kernel

PER_TICK: Final = 1000  # of each kind: about ten milliseconds
NEWEST_TICKS: Final = 10_000  # a week, at one a minute


class Old(NamedTuple):
    """How much is older than the settings keep."""

    ticks: int
    intents: int
    signals: int
    versions: int  # files of baseline versions


def expire(kernel: Kernel, *, limit: int = PER_TICK) -> Old:
    """Remove what is old, up to `limit` of each kind; return how much that was. Under the tick's lock.

    A file that can't be removed is told, and stays.

    Raises:
        StoreUnreachable, Unwritable: the store's.
    """
    rows = _old_rows(kernel, limit)
    intents = _unlink(_old_intents(kernel)[:limit]) if rows.intents else 0
    signals = _unlink(_old_signals(kernel)[:limit])
    with kernel.db.transaction():
        for kept in ("observer.expire_events", "observer.expire_sightings"):
            kernel.db.run(kept, before=_before_ticks(kernel))
        ticks = kernel.db.run("ticks.expire", before=_before_ticks(kernel), newest=NEWEST_TICKS, limit=limit)
        if intents < limit:
            kernel.db.run("intents.expire", before=to_text(_before_files(kernel)), limit=limit)
    return Old(ticks, max(intents, rows.intents), signals, _retire(kernel, limit))


def old(kernel: Kernel) -> Old:
    """Count what is old; changes nothing."""
    rows = _old_rows(kernel, -1)
    return rows._replace(
        intents=max(rows.intents, len(_old_intents(kernel))),
        signals=len(_old_signals(kernel)),
        versions=len(copies.retirable(kernel.db, kernel.path("baseline"), keep=kernel.settings.retention.keep_versions)),
    )


def _retire(kernel: Kernel, limit: int) -> int:
    keep = kernel.settings.retention.keep_versions
    return _unlink(copies.retire(kernel.db, kernel.path("baseline"), keep=keep, at=kernel.now(), limit=limit))


def _old_rows(kernel: Kernel, limit: int) -> Old:
    ticks = kernel.db.rows("ticks.count_old", before=_before_ticks(kernel), newest=NEWEST_TICKS, limit=limit)
    intents = kernel.db.rows("intents.count_old", before=to_text(_before_files(kernel)), limit=limit)
    return Old(int(str(ticks[0]["old"])), int(str(intents[0]["old"])), 0, 0)


def _before_ticks(kernel: Kernel) -> str:
    return to_text(kernel.now() - kernel.settings.retention.keep_ticks)


def _before_files(kernel: Kernel) -> datetime:
    return kernel.now() - max(kernel.settings.retention.keep_processed, kernel.settings.intents.dedup_within)


def _old_intents(kernel: Kernel) -> list[str]:
    """List the files that were moved to `processed/` long ago: a rename sets the change time."""
    folder, before = kernel.path("intents", "processed"), _before_files(kernel).timestamp()
    statuses = [entry.path for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]
    files = (entry for status in statuses for entry in _entries(status) if entry.is_file(follow_symlinks=False))
    return [entry.path for entry in files if entry.stat(follow_symlinks=False).st_ctime < before]


def _old_signals(kernel: Kernel) -> list[str]:
    before, (kept, _) = _before_files(kernel).timestamp(), cycles.last_phase(kernel.db)
    return [
        entry.path
        for entry in _entries(kernel.path("signals"))
        if entry.name.startswith(SIGNAL_PREFIX)
        and ".json" in entry.name  # put aside ones have a word behind it
        and entry.name != f"{SIGNAL_PREFIX}{kept}.json"
        and entry.is_file(follow_symlinks=False)
        and entry.stat(follow_symlinks=False).st_mtime < before
    ]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _unlink(paths: list[str]) -> int:
    done = 0
    for path in paths:
        try:
            os.unlink(path)
            done += 1
        except FileNotFoundError:
            pass
        except OSError as error:
            log(Event.CYCLE_PRUNED, f"{path} is old and can't be removed: {error.strerror}", priority=Priority.WARNING)
    return done
