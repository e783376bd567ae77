"""The folders of versions: which are there, which may go, and which store a version knows.

A folder from which a process runs stays: a cycle that has been at work for hours keeps importing what it began with.
"""

from __future__ import annotations

import glob
import os
import select
import shutil
import time
from contextlib import suppress

from orchestration.installation.record import Place
from orchestration.installation.step import Step


def installed(place: Place) -> list[str]:
    """Name the versions that have a folder."""
    try:
        return sorted(os.listdir(os.path.join(place.base, "versions")))
    except OSError:
        return []


def removal(place: Place, name: str, *, patience: float = 0.0) -> Step:
    """Say whether a version can go; so many seconds are given to what runs from it."""
    folder = place.version(name)
    deadline = time.monotonic() + patience  # a tick that has just begun ends within it
    while (pids := _running_from(folder)) and (left := deadline - time.monotonic()) > 0:
        _await_end(pids[0], left)
    if pids:
        return Step("version", folder, "leave", f"process {pids[0]} runs from it; the next install.sh removes it")
    return Step("version", folder, "remove")


def remove(place: Place, name: str) -> None:
    """Remove the folder of a version; one that was begun no longer counts as a version."""
    folder = place.version(name)
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, ".complete"))
    shutil.rmtree(folder, ignore_errors=True)


def remove_old(place: Place) -> list[Step]:
    """Remove the versions to which neither bin/ leads nor a rollback would go, unless a process runs from them."""
    records = place.records()
    needed = {place.running(), *(() if not records else (records[-1].version, records[-1].previous))}
    steps = []
    for name in installed(place):
        if name in needed:
            continue
        if _running_from(place.version(name)):
            steps.append(Step("version", name, "leave", "until the cycle that runs from it has ended and you install again"))
        else:
            remove(place, name)
    return steps


def known_schema(place: Place, version: str) -> int | None:
    """Return the newest schema of the store that a version knows, or None when that can't be told."""
    pattern = "lib/python3*/site-packages/orchestration/store/migrations/[0-9][0-9][0-9][0-9]_*.sql"
    found = glob.glob(os.path.join(glob.escape(place.version(version)), pattern))
    return max((int(os.path.basename(path)[:4]) for path in found), default=None)


def _running_from(folder: str) -> list[int]:
    needle, own, found = f"{folder}/".encode(), {os.getpid(), os.getppid()}, []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        pid = int(path.split("/")[2])
        with suppress(OSError), open(path, "rb") as file:
            if needle in file.read() and pid not in own:
                found.append(pid)
    return found


def _await_end(pid: int, seconds: float) -> None:
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            select.select([process], [], [], seconds)
        finally:
            os.close(process)
