"""The statements by which a batch is written to SQLite."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from functools import cache
from operator import itemgetter
from typing import Any

from orchestration.bridge.store import rows
from orchestration.bridge.words import spaced
from orchestration.store.queries import sql

_PARAMETER = re.compile(r":([a-z_]+[0-9]*)")


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
    connection.executemany(text, map(values, lines))


def write_all(connection: sqlite3.Connection, lists: dict[str, list[rows.Row]]) -> None:
    """Write what a batch comes to, as `Batch.rows` gives it."""
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
