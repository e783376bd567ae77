"""What is due in a SQLite file every few commits, beside them; a later time makes up for one that was missed."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Final

from orchestration.bridge.store.sqlite_words import index

COMMITS_AN_UPKEEP: Final = 50
"""Of lone changes fewer pages than make SQLite copy its log itself, which it does in a commit, be that in the event loop."""


def keep_up(connection: sqlite3.Connection) -> None:
    """Index the words of messages, and copy what was committed from the log into the file."""
    with suppress(sqlite3.Error):
        index(connection)
    with suppress(sqlite3.Error):  # what was committed stands in the log as well
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
