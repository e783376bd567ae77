"""Copies of PostgreSQL, `bridge-….db`: made, told from others, and put back.

Such a copy is an SQLite file with the bridge's fourteen tables and all tables of its scope (`scope_copies.py`), so it can be
read, checked and restored anywhere.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing, suppress

from orchestration.errors import KlorosError, StoreUnreachable
from orchestration.host import files
from orchestration.operator import backup as copies
from orchestration.operator import postgres_side, scope_copies
from orchestration.operator.console import Console
from orchestration.store.sqlite import SqliteDatabase, uri

PREFIX = "bridge-"
_APPLICATION = 0x6B6C7262  # "klrb", the application_id of a copy of PostgreSQL


def save(url: str, path: str) -> dict[str, int]:
    """Copy the bridge and the scope out of PostgreSQL into a new file, whole or not at all; returns the rows by table."""
    postgres = postgres_side.load()
    from orchestration.bridge.store import transfer

    beside = os.path.join(os.path.dirname(path), files.temporary_name(os.path.basename(path)))
    try:
        SqliteDatabase(beside).close()
        with closing(postgres.PostgresSide(url)) as source:
            rows = scope_copies.keep(source, beside)
            with closing(transfer.SqliteSide(beside, filled=True)) as target:
                rows |= transfer.transfer(source, target).copied
        with closing(sqlite3.connect(uri(beside, "rw"), uri=True)) as made:
            made.execute("PRAGMA journal_mode = DELETE")
            made.execute(f"PRAGMA application_id = {_APPLICATION}")
        os.rename(beside, path)
    except BaseException:
        for name in (beside, f"{beside}-wal", f"{beside}-shm"):
            with suppress(FileNotFoundError):
                os.unlink(name)
        raise
    return rows


def restore(console: Console, file: str, url: str) -> str:
    """Put a copy of this program's schema in the place of what PostgreSQL has; returns the path where that is kept."""
    postgres = postgres_side.load()
    from orchestration.bridge.store import transfer
    from orchestration.store import postgres as tables

    asyncio.run(tables.migrate(url))
    _check_alone(url)
    folder = console.path(copies.FOLDER)
    files.make_folder(folder)
    kept = copies.new_path(folder, f"replaced-{PREFIX}")
    with closing(postgres.PostgresSide(url, filled=True)) as target:
        save(url, kept)
        target.empty()
        scope_copies.put_back(target, file)
        with closing(transfer.SqliteSide(file)) as source:
            transfer.transfer(source, target)
    return kept


def _check_alone(url: str) -> None:
    postgres = postgres_side.load()
    others = postgres.others(url)
    if others:
        what = f"{others} other connections are open to {postgres.named(url)}"
        raise KlorosError(what, hint="stop what uses it: systemctl stop kloros-bridge.service kloros-supervisor.service")


def is_one(file: str) -> bool:
    """Tell whether a file is a copy of PostgreSQL."""
    try:
        with closing(sqlite3.connect(uri(file, "ro"), uri=True)) as looked:
            (application,) = looked.execute("PRAGMA application_id").fetchone()
    except sqlite3.Error as error:
        raise StoreUnreachable(f"{file}: {error}", hint="name a file that klorosctl db backup made") from error
    return int(application) == _APPLICATION
