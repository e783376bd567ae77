"""The statements by which a batch is written to SQLite, and by which the words of messages are indexed after their commit.

A message gets its number by itself, the greatest there is plus one. `bridge_indexed` says up to which number words are in
the index: it moves in the transaction that indexes them, and back when the newest messages go, whose numbers are given anew.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from operator import itemgetter
from typing import Any

from orchestration.bridge.store import rows
from orchestration.bridge.words import spaced
from orchestration.store.queries import sql

_PARAMETER = re.compile(r":([a-z_]+[0-9]*)")
_PART = {"messages": 1000, "characters": 1_000_000}
"""What is indexed in one transaction: some milliseconds, in which nobody else can write."""


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


def index(connection: sqlite3.Connection) -> None:
    """Index the words of all messages of which they are not indexed, a part at a time, each in a transaction of its own.

    Raises:
        sqlite3.Error: not all could be indexed; who asks again goes on from there.
    """
    more = True
    while more:
        connection.execute("BEGIN IMMEDIATE")
        try:
            more = index_part(connection)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.rollback()
            raise


def index_part(connection: sqlite3.Connection) -> bool:
    """Index the words of the next messages, within a transaction that locks the file; say whether more are left.

    In lists, each one statement: a thread waits for Python's lock after every row, as long as the event loop is busy.
    """
    ((messages, last, newest),) = connection.execute(sql("bridge_sqlite.not_indexed"), _PART).fetchall()
    if last is None:
        return False
    words = [(number, spaced(body)) for number, body in json.loads(messages)]
    connection.execute(sql("bridge_sqlite.write_words"), {"words": rows.written(words)})
    connection.execute(sql("bridge_sqlite.move_indexed"), {"number": last})
    return bool(last < newest)
