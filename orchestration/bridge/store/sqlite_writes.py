"""The statements by which a batch is written to SQLite. Imports nothing heavy: a process of its own lives on it."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from orchestration.bridge.words import spaced
from orchestration.store.queries import sql
from orchestration.store.sqlite import uri

if TYPE_CHECKING:
    from orchestration.bridge.store import rows

OF_CONTENT: Final = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
"""What only the change itself is to blame for; the connection is as good as before."""
_BUSY_SECONDS: Final = 3.0
_FREE_SHARE: Final = 0.1
_PAUSE: Final = 0.003
_PARAMETER = re.compile(r":([a-z_]+[0-9]*)")


class Stale(Exception):
    """A thread has moved on since the batch was planned; nothing of it may stay."""


class Turns:
    """Sees to it that other processes get their turn: SQLite's locks know no queue, who polls them needs them to be free.

    They are for a tenth of the time, be it for lack of work or by a pause.
    """

    def __init__(self) -> None:
        self._owed = 0.0
        """Seconds that the file has still to be free."""
        self._ended = self._began = time.monotonic()

    def begin(self) -> None:
        """Wait, if the file was not free for long enough; what follows keeps it locked."""
        now = time.monotonic()
        self._owed = max(0.0, self._owed - (now - self._ended))
        if self._owed > _PAUSE:
            time.sleep(_PAUSE)  # nobody can tell who else waits for the lock
            self._owed = 0.0
            now = time.monotonic()
        self._began = now

    def end(self) -> None:
        """Take note that the file is free again."""
        self._ended = time.monotonic()
        self._owed += _FREE_SHARE * min(self._ended - self._began, 0.1)


def connected(path: str, *, writes: bool = False) -> sqlite3.Connection:
    """Open a file that is there, for one that writes or for one that only looks."""
    connection = sqlite3.connect(
        uri(path, "rw"), uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous = FULL" if writes else "PRAGMA query_only = ON")
    return connection


def number(connection: sqlite3.Connection, posts: list[rows.Row]) -> None:
    """Number messages on from the last, so that their words can be written without looking the number up.

    The index writes what it holds in memory to its tables before a statement that reads: ten times the work.
    """
    ((last,),) = connection.execute(sql("bridge_sqlite.last_number")).fetchall()
    for at, post in enumerate(posts, last + 1):
        post["number"] = at


@cache
def _by_place(name: str) -> tuple[str, Callable[[rows.Row], Any]]:
    """Return a named query with its values told by their places, and what takes those from a row."""
    text = sql(name)
    return _PARAMETER.sub("?", text), itemgetter(*_PARAMETER.findall(text))


def _write(connection: sqlite3.Connection, name: str, lines: list[rows.Row]) -> None:
    text, values = _by_place(f"bridge_sqlite.write_{name}")  # by name, sqlite3 would look every value up: 10 % of a post
    written = connection.executemany(text, map(values, lines)).rowcount
    if name == "threads" and written != len(lines):
        raise Stale


def write_all(connection: sqlite3.Connection, lists: dict[str, list[rows.Row]]) -> None:
    """Write what a batch comes to, as `Batch.rows` gives it.

    Raises:
        Stale: it was planned on what is so no more. sqlite3.Error
    """
    for name, lines in lists.items():
        if name == "removed":
            _remove(connection, lines)
            continue
        if name == "posts":
            number(connection, lines)
        _write(connection, name, lines)
        if name == "posts":
            _write(connection, "words", lines)


def _remove(connection: sqlite3.Connection, threads: list[rows.Row]) -> None:
    for thread in threads:
        # The index keeps no text: what is to go from it must be told again.
        for number, body in connection.execute(sql("bridge_sqlite.bodies"), thread).fetchall():
            told = {"number": number, "words": spaced(body)}
            connection.execute(sql("bridge_sqlite.remove_words"), told)
        for part in ("messages", "participants", "findings", "triggers", "audit", "thread"):
            connection.execute(sql(f"bridge_sqlite.remove_{part}"), thread)
