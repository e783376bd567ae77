"""Copying the bundles of finished cycles to one canonical place that many hosts share.

    bundles/<sha256>.tar.zst                       content-addressed: the same bytes are one object
    entries/<origin>/cycle_00042-<sha256/16>.json  one for each cycle of each store; nobody else writes it, it never changes
    index.json                                     all entries in one file

In this order, so whatever is listed is there. Each step looks first whether it is done: a complete object is never sent
again, one that is cut or another is replaced, an entry that is in the index stays. So being killed anywhere, and doing it
twice, come to the same.

The index is replaced by compare-and-swap. Where the store can't compare, every writer reads all entries before and looks
again after: who writes the index last has seen whatever was entered before. It can be made anew from the entries at any
time.

Runs in the cycle runner's process, after the cycles and without their lock; what has failed is due again after a wait.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import select
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from orchestration.cycles import artifacts, bundle, claims, ledger
from orchestration.cycles.backoff import Backoff
from orchestration.cycles.cycle import Cycle, CycleNumber, Federated, folder_name
from orchestration.cycles.remote import Remote, public, remote
from orchestration.errors import KlorosError, LockHeld, StoreUnreachable
from orchestration.host import clock
from orchestration.host.journal import Event, Priority, log
from orchestration.host.lock import FileLock
from orchestration.store.counters import count
from orchestration.store.instants import from_text_or_none, to_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta
    from types import FrameType

    from orchestration.settings import Settings
    from orchestration.store.port import Database, Row

INDEX: Final = "index.json"
ENTRIES: Final = "entries"
SCHEMA: Final = "v1"
_ORIGIN: Final = "federation.origin"
_ATTEMPTS: Final = 100  # at the index, while others change it
_NAP_MS: Final = 50
_LONGEST_ERROR: Final = 500  # characters


class TimedOut(Exception):
    """One bundle took longer than the settings allow."""


class Done(NamedTuple):
    """What one turn came to."""

    sent: tuple[CycleNumber, ...]
    failed: dict[CycleNumber, str]  # why


class _Packed(NamedTuple):
    path: str
    sha256: str
    size: int

    @property
    def place(self) -> str:
        form = bundle.ZSTD if self.path.endswith(bundle.ZSTD) else bundle.GZIP
        return f"bundles/{self.sha256}{form}"


def federate(db: Database, settings: Settings) -> Done:
    """Copy whatever is due, oldest first, until a cycle is queued; comes back at once when another process is at it.

    Raises:
        StoreUnreachable, Unwritable: our own store or state folder. What the target refuses is noted, never raised.
    """
    sent, failed = list[CycleNumber](), dict[CycleNumber, str]()
    try:
        with FileLock(os.path.join(settings.state_dir, "locks", "federation.lock")).held("federation"):
            tried = set[CycleNumber]()
            while (cycle := _next(db, tried)) is not None and not _is_cycle_queued(db, settings):
                tried.add(cycle)
                error = _attempt(db, settings, cycle)
                if error is None:
                    sent.append(cycle)
                    continue
                failed[cycle] = str(error)
                if isinstance(error, TimedOut):
                    break  # a thread of fsspec may still be at it: this process had better end
    except LockHeld as error:
        log(Event.RUNNER_IDLE, f"another process is copying bundles: {error.message}", priority=Priority.DEBUG)
    return Done(tuple(sent), failed)


def origin(db: Database) -> str:
    """Return the name of this store among all that copy to the same place: the host's, and a few random digits."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", os.uname().nodename)[:100] or "host"
    with db.transaction():
        db.run("facts.set_once", name=_ORIGIN, value=f"{host}-{os.urandom(4).hex()}")
    return str(db.rows("facts.get", name=_ORIGIN)[0]["value"])


def merge(place: Remote, names: set[str] | None) -> int:
    """Bring these entries into the index, or all there are; return how many stand in it.

    Args:
        names: of entry files that are there; None for all.

    Raises:
        KlorosError: others changed the index again and again, faster than we could.
    """
    unreadable = set[str]()
    for _ in range(_ATTEMPTS):
        found = place.read(INDEX)
        index = None if found is None else _parsed(found.content)
        some = names is not None and place.compares and index is not None
        wanted = (names or set()) if some else place.names(ENTRIES) | (names or set())
        missing = wanted - unreadable - (index or {}).keys()
        if index is not None and not missing:
            return len(index)
        added = {name: _entry(place, name) for name in missing}
        unreadable |= {name for name, entry in added.items() if entry is None}
        entries = {**(index or {}), **{name: entry for name, entry in added.items() if entry is not None}}
        if not place.swap(INDEX, _index(entries), None if found is None else found.mark):
            select.poll().poll(random.uniform(1, _NAP_MS))  # noqa: S311 - to be out of step with the others
    raise KlorosError(f"{INDEX} is being changed without pause", hint="it is tried again: klorosctl federation status")


def _next(db: Database, tried: set[CycleNumber]) -> CycleNumber | None:
    due = (cast("CycleNumber", row["cycle"]) for row in db.rows("federation.due", now=to_text(clock.now()), limit=-1))
    return next((cycle for cycle in due if cycle not in tried), None)


def _is_cycle_queued(db: Database, settings: Settings) -> bool:
    return claims.is_waiting(ledger.active(db), settings)


def _attempt(db: Database, settings: Settings, number: CycleNumber) -> Exception | None:
    """Copy one cycle's bundle and note what came of it; return why it failed."""
    (row,) = db.rows("federation.get", cycle=number)
    try:
        with _deadline(settings.federation.timeout):
            place = _copy(db, settings, number, row)
    except StoreUnreachable:
        raise
    except Exception as error:  # whatever fsspec's packages raise, and what the bundle's folder refuses
        _note_failure(db, settings, row, _said(error, settings.federation.target))
        return error
    with db.transaction():
        if db.run("federation.done", cycle=number, place=place, now=to_text(clock.now())):
            count(db, "kloros_federation_total", result=Federated.SENT if place else Federated.SKIPPED)
    said = f"its bundle is {place}, and in the index" if place else "it left nothing to copy"
    log(Event.CYCLE_FEDERATED, f"cycle {number}: {said}", cycle=number)
    return None


def _copy(db: Database, settings: Settings, number: CycleNumber, row: Row) -> str:
    """Do all steps that are not done yet; return where the copy is, "" when there is nothing to copy."""
    cycle = ledger.get(db, number)
    packed = None if cycle is None else _packed(db, settings, number, row)
    if cycle is None or packed is None:
        return ""
    name = origin(db)
    place = remote(settings.federation.target, settings.federation.options, writer=name)
    if not place.holds(packed.place, size=packed.size, sha256=packed.sha256):
        place.put(packed.path, packed.place)
        if not place.holds(packed.place, size=packed.size, sha256=packed.sha256):
            raise KlorosError(f"{packed.place} is not what was sent, when it is read back", hint="it is sent again")
    entry = f"{ENTRIES}/{name}/{folder_name(number)}-{packed.sha256[:16]}.json"
    content = _json(_described(cycle, packed, name))
    found = place.read(entry)
    if found is None or found.content != content:
        place.write(entry, content)
    merge(place, {entry})
    return packed.place


def _packed(db: Database, settings: Settings, number: CycleNumber, row: Row) -> _Packed | None:
    """Give the cycle's bundle, the one that was made for it if it is still there; None when it left no folder."""
    name = folder_name(number)
    path = bundle.path_of(name, settings.bundles_dir)
    known = {row["sha256"], *(one["sha256"] for one in db.rows("bundles.get", cycle=number))} - {""}
    if path is not None and known:
        found = _Packed(path, *_measured(path))
        if found.sha256 in known:
            db.run("federation.note_bundle", cycle=number, sha256=found.sha256, size=found.size)
            return found
    folder = artifacts.cycle_dir(settings.cycles_dir, number)
    if not os.path.isdir(folder):
        return None
    made = bundle.make(folder, settings.bundles_dir)
    db.run("federation.note_bundle", cycle=number, sha256=made.sha256, size=made.size)
    return _Packed(made.path, made.sha256, made.size)


def _measured(path: str) -> tuple[str, int]:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _described(cycle: Cycle, packed: _Packed, name: str) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "origin": name,
        "cycle": cycle.cycle,
        "job": cycle.job,
        "state": cycle.state,
        "started_at": None if cycle.started_at is None else to_text(cycle.started_at),
        "ended_at": None if cycle.ended_at is None else to_text(cycle.ended_at),
        "bundle": packed.place,
        "sha256": packed.sha256,
        "size": packed.size,
    }


def _note_failure(db: Database, settings: Settings, row: Row, why: str) -> None:
    failures, now = int(str(row["failures"])) + 1, clock.now()
    due = now + Backoff(settings.federation.backoff).after(failures)
    with db.transaction():
        db.run("federation.fail", cycle=row["cycle"], failures=failures, now=to_text(now), due_at=to_text(due), error=why)
        count(db, "kloros_federation_total", result=Federated.FAILED)
    told = f"cycle {row['cycle']} can't be copied to {public(settings.federation.target)}: {why}; again at {to_text(due)}"
    log(Event.CYCLE_FEDERATED, told, priority=Priority.WARNING, cycle=row["cycle"])


def _said(error: Exception, target: str) -> str:
    text = f"{error}" if isinstance(error, KlorosError | TimedOut) else f"{type(error).__name__}: {error}"
    return text.replace(target, public(target))[:_LONGEST_ERROR]


@contextmanager
def _deadline(limit: timedelta) -> Iterator[None]:
    """End the block by `TimedOut` after this time. In the main thread of a process only."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise TimedOut(f"it took longer than {limit}")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, limit.total_seconds())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _entry(place: Remote, name: str) -> Any | None:
    """Return an entry's content, None when it is no entry; who wrote it must write it again."""
    found = place.read(name)
    try:
        entry = None if found is None else json.loads(found.content)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        log(Event.CYCLE_FEDERATED, f"{name} is no entry, and left out of the index", priority=Priority.WARNING)
        return None
    return entry


def _parsed(content: bytes) -> dict[str, Any] | None:
    """Return the index's entries, None when it is none of ours: then it is made anew."""
    try:
        entries = json.loads(content)["entries"]
    except (ValueError, KeyError, TypeError):
        return None
    return entries if isinstance(entries, dict) else None


def _index(entries: dict[str, Any]) -> bytes:
    return _json({"schema": SCHEMA, "entries": dict(sorted(entries.items()))})


def _json(content: object) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def pending(db: Database) -> list[dict[str, Any]]:
    """Return what is still to be copied, oldest first, for people."""
    return [_shown(row) for row in db.rows("federation.pending")]


def newest(db: Database, limit: int) -> list[dict[str, Any]]:
    """Return the copies that were made last, newest first, for people."""
    return [_shown(row) for row in db.rows("federation.newest", limit=limit)]


def _shown(row: Row) -> dict[str, Any]:
    found = {name: row[name] for name in ("cycle", "failures", "error", "sha256", "size", "place")}
    instants = ("asked_at", "due_at", "failed_at", "done_at")
    return found | {name: from_text_or_none(cast("str | None", row[name])) for name in instants}
