"""The index of the words of messages in SQLite, which is written after their commit, many at once.

`bridge_indexed` says up to which number of messages words are in the index: it moves in the transaction that indexes them,
and back when the newest messages go, whose numbers are given anew. A search looks through the few that are not indexed yet.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress
from typing import Final

from orchestration.bridge.words import spaced, words
from orchestration.store.queries import sql

_PART: Final = {"messages": 1000, "characters": 1_000_000}
"""What is indexed in one transaction: some milliseconds, in which nobody else can write."""


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
    connection.execute(sql("bridge_sqlite.write_words"), {"words": json.dumps(words)})
    connection.execute(sql("bridge_sqlite.move_indexed"), {"number": last})
    return bool(last < newest)


def searchable(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Let the query `bridge_sqlite.search` look through messages that are not indexed, by a function `has_words`."""
    connection.create_function("has_words", 2, _has_words, deterministic=True)
    return connection


def _has_words(body: str, wanted: str) -> bool:
    return set(wanted.split()) <= set(words(body))
