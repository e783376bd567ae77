"""The statements by which a batch is written to SQLite. Imports nothing heavy: a process of its own lives on it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from orchestration.bridge.words import spaced
from orchestration.store.queries import sql

if TYPE_CHECKING:
    from orchestration.bridge.store import rows

_PARAMETER = re.compile(r":([a-z_]+[0-9]*)")


class Stale(Exception):
    """A thread has moved on since the batch was planned; nothing of it may stay."""


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
        else:
            _write(connection, name, lines)


def _remove(connection: sqlite3.Connection, threads: list[rows.Row]) -> None:
    for thread in threads:
        # The index keeps no text: what is to go from it must be told again, and nothing else.
        for number, body in connection.execute(sql("bridge_sqlite.bodies"), thread).fetchall():
            told = {"number": number, "words": spaced(body)}
            connection.execute(sql("bridge_sqlite.remove_words"), told)
        for part in ("messages", "participants", "findings", "triggers", "audit", "thread"):
            connection.execute(sql(f"bridge_sqlite.remove_{part}"), thread)
        connection.execute(sql("bridge_sqlite.remove_numbers"))
