"""The default store: one SQLite file in the state directory, no server.

WAL with `synchronous=FULL`: a commit that returned is on disk (https://www.sqlite.org/pragma.html#pragma_synchronous).
Transactions begin IMMEDIATE, so a writer waits at the start for at most `BUSY_SECONDS` and never fails halfway.
Who only looks opens it read-only; who may not change a byte works on `copy_of` it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

from orchestration.errors import KlorosError, StoreEmpty, StoreOutdated, StoreUnreachable, Unwritable
from orchestration.store.port import Row, Value
from orchestration.store.queries import sql

BUSY_SECONDS = 10.0
LOG_PAGES = 4000
"""Of 4 KiB, after which a commit copies the log into the file: four times SQLite's own measure, for most pages are the same
few. One measure for all who write to it: with a smaller one, a tick would copy in its commit what others have written."""
_COPY_ATTEMPTS = 20
_WAL_ATTEMPTS = 200
SCHEMA_VERSION = 16
_COPIED = {
    "iterations": "0",
    "products": "0",
    "ticks": "tick > (SELECT max(tick) FROM source.ticks) - 10000",  # a week, at one a minute
}
_DISK_FAULTS = ("disk is full", "readonly database", "disk I/O error")


class SqliteDatabase:
    """A `Database` over one SQLite file."""

    is_shared = False

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        """Open the file, creating and migrating it unless `read_only`.

        A reader too needs write access to the folder: while it is open, SQLite keeps two files beside a WAL database.

        Raises:
            StoreUnreachable: the file can't be opened, is no database, or was written by a newer program.
            StoreEmpty, StoreOutdated: with `read_only`, it has no tables yet, or those of an older release.
            Unwritable: the disk is full or the folder can't be written.
        """
        self.path = path
        with _translated(path):
            self._connection = sqlite3.connect(
                uri(path, "rw" if read_only else "rwc"), uri=True, timeout=BUSY_SECONDS, isolation_level=None
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA query_only = ON" if read_only else "PRAGMA synchronous = FULL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            self._migrate(read_only=read_only)

    @contextmanager
    def transaction(self, *, looking: bool = False) -> Iterator[None]:
        """Commit everything inside together, or nothing; one that only looks keeps nobody from writing."""
        self._execute("BEGIN" if looking else "BEGIN IMMEDIATE", {})
        try:
            yield
            self._execute("COMMIT", {})
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk may have ended it already
                self._connection.rollback()
            raise

    def rows(self, query: str, /, **parameters: Value) -> list[Row]:
        """Return every row of the named query."""
        with _translated(self.path):  # what a statement that also changes rows meets is told by the fetching
            return cast("list[Row]", self._connection.execute(sql(query), parameters).fetchall())

    def run(self, query: str, /, **parameters: Value) -> int:
        """Carry out the named statement; return how many rows it changed."""
        return self._execute(sql(query), parameters).rowcount

    def close(self) -> None:
        """Close the connection; the last one to close moves the log into the file."""
        self._connection.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for who fills a store in memory."""
        return self._connection

    def _execute(self, text: str, parameters: dict[str, Value]) -> sqlite3.Cursor:
        with _translated(self.path):
            return self._connection.execute(text, parameters)

    def _migrate(self, *, read_only: bool) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreUnreachable(
                f"{self.path} has schema version {version}; this program knows {SCHEMA_VERSION}",
                hint="a newer release wrote it: run that release, or restore a backup made before the upgrade",
            )
        if version == SCHEMA_VERSION:
            return
        if read_only and version:
            raise StoreOutdated(
                f"{self.path} has schema version {version}, and this program works with {SCHEMA_VERSION}",
                hint="the next tick migrates it: klorosctl tick",
            )
        if read_only:
            raise StoreEmpty(f"{self.path} has no tables yet", hint="the first tick makes them")
        from orchestration.store.migrations import numbered

        self._use_wal()
        with self.transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            for number, text in numbered():
                if number > version:
                    self._apply(number, text)

    def _use_wal(self) -> None:
        """Change the journal's mode; two who do so at once are told `locked` without SQLite's own waiting."""
        for attempt in range(_WAL_ATTEMPTS):
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or attempt == _WAL_ATTEMPTS - 1:
                    raise
                time.sleep(BUSY_SECONDS / _WAL_ATTEMPTS)  # nothing tells when the other has done it
            else:
                return

    def _apply(self, number: int, text: str) -> None:
        statement = ""
        for line in text.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                self._connection.execute(statement)
                statement = ""
        self._connection.execute(f"PRAGMA user_version = {number}")


def copy_of(path: str) -> SqliteDatabase:
    """Return a store with the same content that lives in this process only; changes no byte on disk.

    Of what only history needs it has the newest ticks, and nothing of what cycles left and of the loop's iterations: these
    grow for years, and no rule asks for them. The bridge's threads are no matter of the ticks at all.

    Raises:
        StoreEmpty: there are no tables yet.
        StoreUnreachable: it can't be read, or was written to during every attempt.
    """
    for _ in range(_COPY_ATTEMPTS):
        before = identity(path)
        try:
            copy = _copied(path)
        except (StoreUnreachable, Unwritable):
            if identity(path) == before:
                raise
            continue
        if identity(path) == before:
            return copy
        copy.close()
    raise StoreUnreachable(f"{path} is being written to without pause", hint="try again")


def _copied(path: str) -> SqliteDatabase:
    # Opening a WAL database makes two files beside it, unless it is declared immutable: true while nobody has it open.
    address = uri(path, "ro") if os.path.exists(f"{path}-wal") else f"{uri(path, 'ro')}&immutable=1"
    with _translated(path):
        source = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)
        try:
            if source.execute("PRAGMA user_version").fetchone() == (0,):
                raise StoreEmpty(f"{path} has no tables yet", hint="the first tick makes them")
            memory = SqliteDatabase(":memory:")
            if source.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,):
                _fill(memory._connection, address)
            else:
                source.backup(memory._connection)
        finally:
            source.close()
    memory._migrate(read_only=False)
    return memory


def _fill(memory: sqlite3.Connection, address: str) -> None:
    """Copy every table's rows, less history, out of one moment of a store of the same schema."""
    memory.execute("ATTACH ? AS source", (address,))
    tables = [name for (name,) in memory.execute("SELECT name FROM source.sqlite_schema WHERE type = 'table'")]
    memory.execute("BEGIN")
    for name in tables:
        if not name.startswith(("sqlite_", "bridge_")):  # names of our own migrations
            memory.execute(f"INSERT INTO main.{name} SELECT * FROM source.{name} WHERE {_COPIED.get(name, '1')}")  # noqa: S608
    memory.execute("COMMIT")
    memory.execute("DETACH source")


def identity(path: str) -> list[tuple[int, int, int] | None]:
    """Return what changes with the content: of the file and of its log, None where there is none."""
    return [_stat(path), _stat(f"{path}-wal")]


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def uri(path: str, mode: str) -> str:
    """Return the address under which SQLite opens a file in a mode (https://www.sqlite.org/uri.html)."""
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file:{quoted}?mode={'memory' if path == ':memory:' else mode}"


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _as_ours(error, path) from error


def _as_ours(error: sqlite3.Error, path: str) -> KlorosError:
    text = str(error)
    folder = os.path.dirname(path)
    room, full = _room(folder)
    if full or any(fault in text for fault in _DISK_FAULTS) or not os.access(folder, os.W_OK):
        hint = f"check free space and permissions: df -h {folder}; df -i {folder}; ls -ld {folder}"
        return Unwritable(f"{path}: {text}{room}", hint=hint)
    return StoreUnreachable(
        f"{path}: {text}", hint=f"check the file: sqlite3 {path} 'PRAGMA integrity_check'; klorosctl doctor"
    )


def _room(folder: str) -> tuple[str, bool]:
    """Say how much room there is, and whether none is left: SQLite has other names for some full disks.

    A file system that makes inodes as it needs them gives 0 for their number (btrfs).
    """
    try:
        found = os.statvfs(folder)
    except OSError:
        return "", False
    text = f" ({found.f_bavail * found.f_frsize} bytes and {found.f_favail} inodes free)"
    return text, found.f_bavail == 0 or (found.f_files > 0 and found.f_favail == 0)
