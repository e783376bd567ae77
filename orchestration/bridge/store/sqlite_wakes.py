"""Waking over SQLite: a connection of its own to the file that the bridge writes too, in one thread.

Writing begins by taking the file's lock, for which it waits at most three seconds. Whether anybody has written is told by
`data_version` (https://www.sqlite.org/pragma.html#pragma_data_version), which takes some microseconds to ask for.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar, cast

from orchestration.bridge.chain import Head, workspace_chain
from orchestration.bridge.refusal import Refused
from orchestration.bridge.state import Ask
from orchestration.bridge.store import rows
from orchestration.bridge.store.batch import Loaded
from orchestration.bridge.store.lookups import Clock, unavailable, utc_now
from orchestration.bridge.store.sqlite_file import connected
from orchestration.bridge.store.sqlite_writes import write_all
from orchestration.bridge.store.wake_steps import Known, Lost, Statement, Steps
from orchestration.bridge.store.wakes import WakeSteps
from orchestration.store.queries import sql
from orchestration.store.sqlite import SqliteDatabase

_LOOK_SECONDS = (0.2, 0.05)
"""How often the file is looked at: while nothing happens, and for some seconds after something has."""
_BUSY_SECONDS = 5.0
_TAKEN = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
_DEFECTS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
_Answer = TypeVar("_Answer")


class SqliteWakes(WakeSteps):
    """A `WakeStore` over one SQLite file; belongs to the event loop that opened it."""

    def __init__(self, path: str, *, clock: Clock = utc_now) -> None:
        """Create or migrate the file.

        Raises:
            StoreUnreachable, Unwritable: it can't be opened or migrated.
        """
        super().__init__(clock)
        SqliteDatabase(path).close()
        self._path = path
        self._thread = ThreadPoolExecutor(1, "bridge-wake")
        self._connection: sqlite3.Connection | None = None
        self._watched: sqlite3.Connection | None = None
        self._version: int | None = None
        self._changed_at = 0.0

    async def wait_for_work(self, *, seconds: float) -> bool:
        """Wait until anybody has written to the file since this was asked last."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            version = self._data_version()
            if version not in (None, self._version):
                self._version, self._changed_at = version, loop.time()
                return True
            left = until - loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(_LOOK_SECONDS[loop.time() < self._changed_at + _BUSY_SECONDS], left))

    async def close(self) -> None:
        """Finish what is under way, and close the file."""
        await asyncio.to_thread(self._thread.shutdown)
        for connection in (self._connection, self._watched):
            if connection is not None:
                connection.close()

    async def _done(self, steps: Callable[[], Steps[_Answer]], *, looking: bool = False) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, steps, looking)

    def _data_version(self) -> int | None:
        """Ask in the loop's own thread: a reader of a WAL database waits for nobody. None when it can't be told now."""
        try:
            if self._watched is None:
                self._watched = connected(self._path)
            return int(self._watched.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            if self._watched is not None:
                self._watched.close()
            self._watched = None
            return None

    def _transaction(self, steps: Callable[[], Steps[_Answer]], looking: bool) -> _Answer:
        try:
            if self._connection is None:
                self._connection = connected(self._path, writes=True)
            self._connection.execute("BEGIN" if looking else "BEGIN IMMEDIATE")
            answer = _carried_out(self._connection, steps())
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._undo(error)
            if getattr(error, "sqlite_errorcode", 0) in _TAKEN:  # somebody was faster, where a unique index tells
                raise Lost from error
            if isinstance(error, sqlite3.Error) and not isinstance(error, _DEFECTS):
                raise unavailable(error) from error
            raise
        return answer

    def _undo(self, error: BaseException) -> None:
        if self._connection is None:
            return
        with suppress(sqlite3.Error):
            self._connection.rollback()
        if not isinstance(error, Lost | Refused):
            self._connection.close()
            self._connection = None


def _carried_out(connection: sqlite3.Connection, steps: Steps[_Answer]) -> _Answer:
    found: Any = None
    while True:
        try:
            step = steps.send(found)
        except StopIteration as end:
            return cast("_Answer", end.value)
        if isinstance(step, Statement):
            name = step.query if "." in step.query else f"wakes_sqlite.{step.query}"
            found = connection.execute(sql(name), step.asked).fetchall()
        elif isinstance(step, Known):
            found = _known(connection, step.ask)
        else:
            write_all(connection, step.batch.rows())


def _known(connection: sqlite3.Connection, ask: Ask) -> Loaded:
    """Give what is known of a thread, and of a workspace's chain; the file is locked already."""
    loaded, thread = Loaded(), {"ids": rows.written([ask.thread_id])}
    loaded.fill(
        threads=connection.execute(sql("bridge_sqlite.threads"), thread).fetchall(),
        members=connection.execute(sql("bridge_sqlite.members"), thread).fetchall(),
    )
    chains = {"ids": rows.written(loaded.chains_to_lock((ask,)) if ask.thread_id is None else [])}
    for row in connection.execute(sql("bridge_sqlite.heads"), chains).fetchall():
        loaded.heads[workspace_chain(row["workspace_id"])] = Head(row["links"], row["head"])
    return loaded
