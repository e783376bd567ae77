"""The entries of escrow as files, for people and other programs: `escrow/escrow-<12 hex>.json`, copies of the store.

An edited file changes nothing; when its entry changes, it is written again.
"""

from __future__ import annotations

import os

from orchestration.baseline import escrow_ledger
from orchestration.baseline.escrow import Entry, file_name, to_bytes
from orchestration.host import files
from orchestration.store.port import Database

_MODE = 0o640


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
        files.replace(os.path.join(folder, file_name(entry.entry)), to_bytes(entry), _MODE)
    with db.transaction():
        for entry in missing:
            db.run("escrow.written", entry=entry.entry, status=entry.status)
    return missing
