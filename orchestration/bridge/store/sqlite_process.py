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
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from orchestration.bridge.store.awake import AWAKE
from orchestration.bridge.store.sqlite_file import Turns, connected, does_no_harm
from orchestration.bridge.store.sqlite_words import index
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
_COMMITS_AN_INDEXING: Final = 50


def framed(lists: dict[str, list[dict[str, Any]]], *, rests: bool = False) -> bytes:
    """Return a batch as it is sent; `rests` when it was planned on what the one before it is to leave."""
    told = pickle.dumps(lists, pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(len(told), rests) + told


class Writing:
    """The file, and what has to be remembered between two batches."""

    def __init__(self, path: str) -> None:
        self._connection = connected(path, writes=True)
        self._turns = Turns()
        self._version = -1
        self._commits = 0
        self._before = WRITTEN

    def answer(self, told: bytes, *, rests: bool) -> bytes:
        """Write a batch, or nothing of it; return the answer."""
        if not (rests and self._before == REFUSED):
            self._before = self._written(pickle.loads(told))  # noqa: S301 - of the bridge that started this process
        return self._before

    def index(self) -> None:
        """Index the words of messages, every few commits; those that it can't come with later ones."""
        if self._commits >= _COMMITS_AN_INDEXING:
            self._commits = 0
            with suppress(sqlite3.Error):
                index(self._connection)

    def close(self) -> None:
        self._connection.close()

    def _written(self, lists: dict[str, list[dict[str, Any]]]) -> bytes:
        connection = self._connection
        self._turns.begin()
        try:
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            write_all(connection, lists)
            connection.execute("COMMIT")
        except (Stale, sqlite3.Error) as error:
            with suppress(sqlite3.Error):
                connection.rollback()
            return REFUSED if isinstance(error, Stale) or does_no_harm(error) else FAILED
        finally:
            self._turns.end()
        self._commits += 1
        others, self._version = version != self._version, version
        return WRITTEN_AFTER_OTHERS if others else WRITTEN


def batches(asking: socket.socket) -> Iterator[tuple[bytes, bool]]:
    """Give what is asked for, and whether it rests on the one before, until nobody can ask any more."""
    while True:
        _look_for_more(asking)
        head = asking.recv(HEAD.size, socket.MSG_WAITALL)
        if len(head) < HEAD.size:
            return
        length, rests = HEAD.unpack(head)
        told = asking.recv(length, socket.MSG_WAITALL)
        if len(told) < length:
            return
        yield told, rests


def _look_for_more(asking: socket.socket) -> None:
    """Wait for what is asked next without going to sleep, for as long as it may take to be woken."""
    until = time.monotonic() + AWAKE
    while time.monotonic() < until:
        with suppress(BlockingIOError):
            asking.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            return


def main(path: str, asking: socket.socket) -> None:
    """Write what is asked for."""
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    writing = Writing(path)
    asking.sendall(UP)
    for told, rests in batches(asking):
        answer = writing.answer(told, rests=rests)
        asking.sendall(answer)
        if answer == FAILED:
            break
        writing.index()
    writing.close()


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError):  # who asked has gone
        main(sys.argv[1], socket.socket(fileno=0))
