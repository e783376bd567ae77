"""The entries of escrow as files, for people and other programs: `escrow/escrow-<12 hex>.json`, copies of the store.

An edited file changes nothing; when its entry changes, it is written again, and `klorosctl baseline verify` finds it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from orchestration.baseline import agreement, escrow_ledger
from orchestration.baseline.escrow import Entry, bare_id, file_name, to_bytes
from orchestration.host import files
from orchestration.store.port import Database


def bring_up(db: Database, folder: str) -> list[Entry]:
    """Write what the store has and the files have not; return those entries. Under the kernel's lock.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    missing = escrow_ledger.unwritten(db)
    if not missing:
        return []
    files.make_folder(folder)
    files.sweep(folder, os.listdir(folder))
    for entry in missing:
        files.replace(os.path.join(folder, file_name(entry.entry)), to_bytes(entry), agreement.MODE)
    with db.transaction():
        for entry in missing:
            db.run("escrow.written", entry=entry.entry, status=entry.status)
    return missing


def verify(db: Database, folder: str) -> list[str]:
    """Say which files don't say what the store says, and which are of no entry. Empty when all is well."""
    wanted = _wanted(db, folder)
    return [*agreement.faults(wanted), *(f"{path} is of no entry of escrow" for path in _strays(folder, wanted))]


def restore(db: Database, folder: str) -> list[str]:
    """Write those files again; what was edited, and what is of no entry, is put aside as `.edited`. Return their paths.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    wanted = _wanted(db, folder)
    strays = _strays(folder, wanted)
    agreement.put_aside(strays)
    if wanted:
        files.make_folder(folder)
        files.sweep(folder, os.listdir(folder))
    return [*agreement.mend(wanted), *strays]


def _wanted(db: Database, folder: str) -> dict[str, bytes]:
    return {os.path.join(folder, file_name(entry.entry)): to_bytes(entry) for entry in escrow_ledger.every(db)}


def _strays(folder: str, wanted: Mapping[str, bytes]) -> list[str]:
    """Return the files of entries that the store does not have: it was set back to a copy from before them."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    paths = [os.path.join(folder, name) for name in names if name == file_name(bare_id(name))]
    return [path for path in paths if path not in wanted]
