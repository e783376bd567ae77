"""The process that writes to SQLite beside the bridge: `python -m orchestration.bridge.store.sqlite_process PATH`.

Asked over its standard input, a socket: four bytes of length, one that tells whether the batch rests on the one before, and
its rows (`Batch.rows`) as a pickle. What rests on one that was not written is refused: no row tells that as surely. It
answers with one byte, once the batch is on disk or nothing of it is written. It ends when the other side is closed, and not
by the signals that a service manager sends before: the last batch is not to be lost for them. Imports nothing heavy: it is
to start in a tenth of a second, and to take little.
"""

from __future__ import annotations

import pickle
import signal
import socket
import sqlite3
import struct
import sys
from contextlib import suppress
from typing import Any, Final

from orchestration.bridge.store.sqlite_file import OF_CONTENT, Turns, connected
from orchestration.bridge.store.sqlite_upkeep import COMMITS_AN_UPKEEP, keep_up
from orchestration.bridge.store.sqlite_writes import Stale, write_all

UP: Final = b"u"
WRITTEN: Final = b"w"
WRITTEN_AFTER_OTHERS: Final = b"o"
"""Written, and another connection has written to the file since the last that was."""
REFUSED: Final = b"r"
"""Nothing is written: planned on what is so no more, or against a constraint, or the file is locked."""
FAILED: Final = b"f"
"""Nothing is written, and it ends: what is wrong is for another connection to find out."""
HEAD: Final = struct.Struct("<I?")


def framed(lists: dict[str, list[dict[str, Any]]], *, rests: bool = False) -> bytes:
    """Return a batch as it is sent; `rests` when it was planned on what the one before it is to leave."""
    told = pickle.dumps(lists, pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(len(told), rests) + told


def main(path: str, asking: socket.socket) -> None:
    """Write what is asked for until nobody can ask any more."""
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    connection, turns, version, commits, answer = connected(path, writes=True), Turns(), -1, 0, WRITTEN
    asking.sendall(UP)
    with asking.makefile("rb") as asked:
        while len(head := asked.read(HEAD.size)) == HEAD.size:
            length, rests = HEAD.unpack(head)
            told = asked.read(length)
            if len(told) < length:  # who asked has gone
                break
            if rests and answer == REFUSED:
                asking.sendall(REFUSED)
                continue
            answer, seen = _written(connection, pickle.loads(told), turns)  # noqa: S301 - of who started this process
            if answer == WRITTEN and seen != version:
                answer = WRITTEN_AFTER_OTHERS
            version = seen
            asking.sendall(answer)
            if answer == FAILED:
                break
            commits += answer != REFUSED
            if commits == COMMITS_AN_UPKEEP:
                commits = 0
                keep_up(connection)
    connection.close()


def _written(connection: sqlite3.Connection, lists: dict[str, list[dict[str, Any]]], turns: Turns) -> tuple[bytes, int]:
    """Write a batch; return what became of it, and of which commit of others it was seen last (`PRAGMA data_version`)."""
    turns.begin()
    seen = -1
    try:
        connection.execute("BEGIN IMMEDIATE")
        (seen,) = connection.execute("PRAGMA data_version").fetchone()
        write_all(connection, lists)
        connection.execute("COMMIT")
    except (Stale, sqlite3.Error) as error:
        with suppress(sqlite3.Error):
            connection.rollback()
        is_busy = isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        return REFUSED if is_busy or isinstance(error, (Stale, *OF_CONTENT)) else FAILED, seen
    finally:
        turns.end()
    return WRITTEN, seen


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError):  # who asked has gone
        main(sys.argv[1], socket.socket(fileno=0))
