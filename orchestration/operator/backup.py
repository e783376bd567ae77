"""`klorosctl backup`: a copy of the store, made while ticks go on; and setting the store back to one.

A copy is made by SQLite itself, so it is of one instant, whatever is written meanwhile; setting back is one transaction.
The files of baseline and escrow follow with the next tick, whoever set the store back: a copy says that none is written.
https://www.sqlite.org/backup.html
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime

import click

from orchestration import wiring
from orchestration.errors import StoreUnreachable
from orchestration.host import files
from orchestration.operator.console import Console, json_option
from orchestration.operator.screen import size
from orchestration.store import opening

FOLDER = "backups"
PREFIX, _SUFFIX = "kloros-", ".db"
_FORGET = (  # table, a column that an older schema may lack, what to do
    ("baseline_versions", "retired_at", "UPDATE baseline_versions SET written = 0 WHERE retired_at IS NULL"),
    ("escrow", "written", "UPDATE escrow SET written = 0"),
)


@click.command()
@click.option(
    "--keep", type=click.IntRange(min=1), default=3, show_default=True, help="Copies that stay, this one included."
)
@json_option
@click.pass_obj
def backup(console: Console, *, keep: int) -> None:
    """Copy the store to `backups/` in the state folder, whole, while ticks go on. Upgrades do it by themselves."""
    console.become_owner()
    os.umask(0o077)
    store, folder = console.path(wiring.STORE), console.path(FOLDER)
    if not os.path.exists(store):
        place = opening.place_of(console.settings)
        told = f"The store is {place}: back it up there, with pg_dump" if place.url else f"There is no store yet: {store}"
        console.answer({"path": None, "schema": None, "removed": []}, lambda: [told])
        return
    files.make_folder(folder)
    path = new_path(folder, PREFIX)
    copy(store, path)
    removed = remove_older(folder, PREFIX, keep)
    schema = schema_of(path)
    console.note("backup", f"copies the store to {path}")
    console.answer(
        {"path": path, "schema": schema, "removed": removed},
        lambda: [f"{path}  {size(os.path.getsize(path))}, schema {schema}", *(f"removed: {one}" for one in removed)],
    )


def copy(store: str, path: str) -> None:
    """Copy a store to a path, whole or not at all.

    Raises:
        StoreUnreachable: it can't be read or the copy can't be written.
    """
    beside = os.path.join(os.path.dirname(path), files.temporary_name(os.path.basename(path)))
    try:
        with closing(_open(store, "ro")) as source, closing(_open(beside, "rwc")) as target:
            source.backup(target)
            _forget_files(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, that can be taken elsewhere
        descriptor = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(beside, path)
    except (sqlite3.Error, OSError) as error:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise StoreUnreachable(f"{store} can't be copied to {path}: {error}", hint="df -h; klorosctl doctor") from error


def set_back(store: str, path: str, folder: str = "") -> str:
    """Give a store the content of a copy; what it had is kept in a folder, beside the copy if none is named.

    Returns its path.

    Raises:
        StoreUnreachable: nothing was changed.
    """
    kept = os.path.join(folder or os.path.dirname(path), f"replaced-{_stamp()}{_SUFFIX}")
    copy(store, kept)
    try:
        with closing(_open(path, "ro")) as source, closing(_open(store, "rw")) as target:
            source.backup(target)
    except sqlite3.Error as error:
        raise StoreUnreachable(
            f"{store} can't be set back to {path}: {error}", hint="is it in use? fuser -v of it"
        ) from error
    return kept


def schema_of(path: str) -> int:
    """Return the version of a store's schema.

    Raises:
        StoreUnreachable: it can't be read.
    """
    try:
        with closing(_open(path, "ro")) as source:
            return int(source.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise StoreUnreachable(f"{path}: {error}", hint="klorosctl doctor") from error


def _forget_files(target: sqlite3.Connection) -> None:
    """Let a store that is set back to this copy write its files again: by then they may say what came later."""
    for table, column, forget in _FORGET:
        if column in {row[1] for row in target.execute("SELECT * FROM pragma_table_info(?)", (table,))}:
            target.execute(forget)
    target.commit()


def new_path(folder: str, prefix: str) -> str:
    """Name a copy that is made now."""
    return os.path.join(folder, f"{prefix}{_stamp()}{_SUFFIX}")


def remove_older(folder: str, prefix: str, keep: int) -> list[str]:
    """Remove all copies of a kind but the newest; return their paths."""
    names = sorted(name for name in os.listdir(folder) if name.startswith(prefix) and name.endswith(_SUFFIX))
    removed = [os.path.join(folder, name) for name in names[:-keep]]
    for one in removed:
        with suppress(FileNotFoundError):
            os.unlink(one)
    return removed


def _open(path: str, mode: str) -> sqlite3.Connection:
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(f"file:{quoted}?mode={mode}", uri=True, timeout=10)


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
