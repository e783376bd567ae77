"""Looks at the store as it stands at one instant, without writing a byte and without holding up a writer.

PostgreSQL gives that by one transaction. The rest is for a process that may not write where the file lies. SQLite keeps
two files beside a WAL database while it is open; they are there while a tick or a runner is at work, and a reader then
shares them (`mode=ro`). Between ticks there are none, and a reader that may not make them can only declare the file
immutable (https://www.sqlite.org/wal.html#read_only_databases). Whether it was, is known afterwards: if the file has changed
meanwhile, what was seen counts for nothing, and it is looked at once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar, cast

from orchestration.errors import StoreEmpty, StoreOutdated, StoreUnreachable, Unwritable
from orchestration.store.port import Database, Row, Value
from orchestration.store.queries import sql
from orchestration.store.sqlite import BUSY_SECONDS, SCHEMA_VERSION, identity, uri

_ATTEMPTS = 20
_Seen = TypeVar("_Seen")


class Snapshot:
    """A `Database` that only tells: everything from one read transaction."""

    def __init__(self, path: str, rows: Callable[[str, dict[str, Value]], list[Row]], *, is_shared: bool = False) -> None:
        """Take what asks a named query, in a read transaction that has begun; `is_shared`: of a store that hosts share."""
        self.path = path
        self.is_shared = is_shared
        self._rows = rows

    @contextmanager
    def transaction(self, *, looking: bool = True) -> Iterator[None]:
        """Do nothing: all of this is one transaction."""
        yield

    def rows(self, query: str, /, **parameters: Value) -> list[Row]:
        """Return every row of the named query."""
        return self._rows(query, parameters)

    def run(self, query: str, /, **parameters: Value) -> int:
        """Refuse.

        Raises:
            Unwritable: always.
        """
        raise Unwritable(f"{self.path} is only looked at here; {query} would change it {parameters}")

    def close(self) -> None:
        """Do nothing: who gave it closes it."""


def look(path: str, see: Callable[[Database], _Seen]) -> _Seen:
    """Return what `see` returns, given the store as it stands; it may be asked again, and must not keep the store.

    Raises:
        StoreEmpty: there is no store yet, or it has no tables.
        StoreOutdated: its tables are those of an older release.
        StoreUnreachable: it can't be read, or a newer release wrote it.
    """
    for attempt in range(_ATTEMPTS):
        before = _identity(path)
        if before[0] is None:
            raise StoreEmpty(f"there is no store at {path} yet", hint="the first tick makes it: klorosctl tick")
        try:
            with _opened(path, immutable=before[1] is None) as snapshot:
                seen = see(snapshot)
        except StoreUnreachable:
            if _identity(path) == before or attempt == _ATTEMPTS - 1:
                raise
            continue
        # Beside a log, SQLite's own locks have made sure that all was of one piece.
        if before[1] is not None or _identity(path) == before:
            return seen
    raise StoreUnreachable(f"{path} is being written to without pause", hint="try again")


def look_at_server(url: str, see: Callable[[Database], _Seen], *, scope: str, here: str) -> _Seen:
    """Return what `see` returns, given the store at a URL as it stands; it must not keep the store. Raises: as `look`."""
    from orchestration.store.postgres_database import PostgresDatabase

    db = PostgresDatabase(url, scope=scope, here=here, read_only=True)
    try:
        with db.transaction(looking=True):
            return see(Snapshot(str(db), lambda query, parameters: db.rows(query, **parameters), is_shared=True))
    finally:
        db.close()


def _identity(path: str) -> list[tuple[int, int, int] | None]:
    try:
        return identity(path)
    except OSError as error:
        hint = f"it is its owner's: run this as that user; see who may read it: ls -ld {path}"
        raise StoreUnreachable(f"{path}: {error.strerror}", hint=hint) from error


@contextmanager
def _opened(path: str, *, immutable: bool) -> Iterator[Snapshot]:
    address = f"{uri(path, 'ro')}&immutable=1" if immutable else uri(path, "ro")
    with _told(path):
        connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with _told(path):
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        _check(path, version)
        yield Snapshot(path, partial(_asked, connection, path))
    finally:
        with suppress(sqlite3.Error):
            connection.close()


def _asked(connection: sqlite3.Connection, path: str, query: str, parameters: dict[str, Value]) -> list[Row]:
    with _told(path):
        return cast("list[Row]", connection.execute(sql(query), parameters).fetchall())


def _check(path: str, version: int) -> None:
    if version == 0:
        raise StoreEmpty(f"{path} has no tables yet", hint="the first tick makes them: klorosctl tick")
    told = f"{path} has schema version {version}; this program knows {SCHEMA_VERSION}"
    if version < SCHEMA_VERSION:
        raise StoreOutdated(told, hint="the next tick migrates it: klorosctl tick")
    if version > SCHEMA_VERSION:
        raise StoreUnreachable(told, hint="a newer release wrote it: restart the service to run that one")


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        hint = f"see who may read it: ls -l {path}*; check it: sqlite3 {path} 'PRAGMA integrity_check'; klorosctl doctor"
        raise StoreUnreachable(f"{path}: {error}", hint=hint) from error
