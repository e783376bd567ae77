"""What is written to SQLite by the bridge itself: at once where that takes microseconds, else by a thread."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from orchestration.bridge.chain import Head, workspace_chain
from orchestration.bridge.state import Ask
from orchestration.bridge.store import rows
from orchestration.bridge.store.batch import Batch, Loaded, Wanted
from orchestration.bridge.store.lookups import Clock, Waiting, planned_together, unavailable
from orchestration.bridge.store.sqlite_file import BUSY_SECONDS, Turns, connected, does_no_harm
from orchestration.bridge.store.sqlite_words import index
from orchestration.bridge.store.sqlite_writes import write_all
from orchestration.store.queries import sql

_WAITING, _NOT_WAITING = f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}", "PRAGMA busy_timeout = 0"
_Done = TypeVar("_Done")


class Locked:
    """A connection that writes. The loop's own thread uses it for a moment, or its thread for longer; never both."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._connection: sqlite3.Connection | None = None
        self._turns = Turns()
        self._thread = ThreadPoolExecutor(1, "bridge-write")
        self._version = -1
        self.others_wrote = False
        """Another connection wrote to the file between the last two commits of this one."""
        self.usually = 0.0
        """Seconds that its last commits took, the latest counting most."""

    @property
    def is_open(self) -> bool:
        """Tell whether it has a connection of which nothing bad is known."""
        return self._connection is not None

    def write(self, lists: dict[str, list[rows.Row]]) -> None:
        """Commit a batch at once, waiting for nobody.

        Raises:
            Stale, sqlite3.Error: nothing of it is written.
        """
        assert self._connection is not None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            write_all(self._connection, lists)
            self._commit(self._connection)
        except BaseException as error:
            self._undo(error)
            raise

    async def committed(self, batch: list[Waiting], lost: Batch | None, *, first: Callable[[], None] | None = None) -> Batch:
        """Commit a batch on what is looked up under lock; waits for others as long as they may take.

        Args:
            lost: what it was planned as when somebody wrote it who has gone since; it is committed, or never will be.
            first: what the thread does before.

        Raises:
            sqlite3.Error, Refused: nothing of it is written.
        """
        return await self._run(self._committed, batch, lost, first)

    async def upkeep(self) -> None:
        """Index the words of messages, and copy what was committed from the log into the file: every few commits, so that
        SQLite does not do so in one, be that in the loop. Milliseconds, in which that answers and reads.
        """
        await self._run(self._keep_up)

    async def close(self) -> None:
        """Let go of the file."""
        await self._run(self._close)
        self._thread.shutdown()

    async def _run(self, todo: Callable[..., _Done], *given: Any) -> _Done:
        return await asyncio.get_running_loop().run_in_executor(self._thread, todo, *given)

    def _committed(self, batch: list[Waiting], lost: Batch | None, first: Callable[[], None] | None) -> Batch:
        if first is not None:
            first()
        self._turns.begin()
        try:
            if self._connection is None:
                self._connection = connected(self._path, writes=True)
            self._connection.execute(_WAITING)
            self._connection.execute("BEGIN IMMEDIATE")
            if lost is not None and _stands(self._connection, lost):
                self._connection.rollback()
                return lost
            known = _loaded(self._connection, [waiting.ask for waiting in batch])
            planned = planned_together(batch, known, self._clock())
            write_all(self._connection, planned.rows())
            self._commit(self._connection)
        except BaseException as error:
            self._undo(error)
            raise
        finally:
            if self._connection is not None:
                self._connection.execute(_NOT_WAITING)
            self._turns.end()
        return planned

    def _commit(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        began = time.monotonic()
        connection.execute("COMMIT")
        self.usually += (time.monotonic() - began - self.usually) / 16
        self.others_wrote, self._version = version != self._version, version

    def _undo(self, error: BaseException) -> None:
        if self._connection is None:
            return
        with suppress(sqlite3.Error):
            self._connection.rollback()
        if isinstance(error, sqlite3.Error) and not does_no_harm(error):
            self._connection.close()
            self._connection = None

    def _keep_up(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):  # a later time makes up for it
                index(self._connection)
            with suppress(sqlite3.Error):  # what was committed stands in the log as well
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _stands(connection: sqlite3.Connection, lost: Batch) -> bool:
    row = lost.proof()
    if row is None:
        raise unavailable(None)  # it may stand or not
    found = connection.execute(sql("bridge.audit_link"), {"chain": row["chain"], "link": row["link"]}).fetchone()
    return found is not None and found["sha256"] == row["sha256"]


def _found(connection: sqlite3.Connection, query: str, keys: Iterable[object], name: str = "keys") -> Iterable[Any]:
    keys = list(keys)
    return connection.execute(sql(f"bridge_sqlite.{query}"), {name: rows.written(keys)}).fetchall() if keys else ()


def _remembered(connection: sqlite3.Connection, wanted: Wanted) -> Iterable[Any]:
    """Look keys up one by one: a list of them in JSON costs three times as much, of one or of eight."""
    return [row for key in wanted.keys for row in connection.execute(sql("bridge_sqlite.key"), key)]


def _loaded(connection: sqlite3.Connection, asks: Iterable[Ask]) -> Loaded:
    wanted, loaded = Wanted(asks), Loaded()
    found = partial(_found, connection)
    loaded.fill(
        threads=found("threads", wanted.threads, "ids"),
        members=found("members", wanted.threads, "ids"),
        rates=found("rates", wanted.agents),
        keys=_remembered(connection, wanted),
        findings=found("findings", wanted.findings),
        sessions=found("sessions", wanted.sessions),
    )
    for row in found("replies", wanted.replies, "ids"):
        loaded.replies[row["message_id"]] = row["thread_id"]
    for row in found("heads", loaded.chains_to_lock(asks), "ids"):
        loaded.heads[workspace_chain(row["workspace_id"])] = Head(row["links"], row["head"])
    return loaded
