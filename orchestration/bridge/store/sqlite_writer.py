"""The one thread that writes to SQLite: whatever waits when it is free shares a transaction and a sync to disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias

from orchestration.bridge.chain import Head, workspace_chain
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Ask
from orchestration.bridge.store import rows
from orchestration.bridge.store.batch import Batch, Loaded, Outcome, Wanted
from orchestration.bridge.store.lookups import Clock, Waiting, planned_together, unavailable
from orchestration.bridge.store.recent import Recent, RecentRates
from orchestration.bridge.store.sqlite_writes import index, write_all
from orchestration.store.queries import sql
from orchestration.store.sqlite import uri

_BUSY_SECONDS = 3.0
_MOST_TOGETHER = 512
_PAUSE_SHARE = 0.1
"""Of a busy writer's time that it leaves to other processes."""
_PAUSE = 0.003
_QUICK = 0.002
"""Where commits take less, they are made in the loop: the way to the thread and back takes as long, and while it is about
both wait for Python's lock; eight clients post a quarter more."""
_WAITING, _NOT_WAITING = f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}", "PRAGMA busy_timeout = 0"
_COMMITS_A_CHECKPOINT = 50
"""Of lone changes fewer pages than make SQLite copy the log itself, which it does in a commit, be that in the loop."""
_OF_CONTENT = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
_Done: TypeAlias = tuple[list[Outcome[Any]], dict[str, int]]
"""What became of each of a batch, and where threads are now."""


class Writer:
    """Writes, one transaction after the other; belongs to the event loop, and has a thread for what takes the disk's time.

    A batch that rests on what the last commit left is planned and written in the loop, in microseconds, and only its commit
    is the thread's, unless syncs are as quick: statements of a thread beside a busy loop wait for Python's lock at every
    step. What must wait for somebody else's lock, or look more up, is the thread's as a whole.
    """

    def __init__(
        self, path: str, clock: Clock, loop: asyncio.AbstractEventLoop, announce: Callable[[dict[str, int]], None]
    ) -> None:
        self._path = path
        self._clock = clock
        self._loop = loop
        self._announce = announce
        self._waiting: list[Waiting] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._together = 1
        """How many shared the last commit."""
        self._owed = 0.0
        """Seconds of pause that other processes have still to get."""
        self._usual = 1.0
        """Seconds that the last commits took, the latest counting most."""
        self._connection: sqlite3.Connection | None = None
        self._commits = self._changes = self._checkpointed = 0
        self._version = -1
        self._recent, self._rates = Recent(), RecentRates()
        self._searches: list[asyncio.Future[None]] = []
        """Those that wait for the words of messages to be indexed."""
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="bridge-write", daemon=True)
        self._thread.start()

    def take(self, waiting: Waiting) -> None:
        self._refuse_if_closing()
        self._waiting.append(waiting)
        if self._idle.is_set():
            self._idle.clear()
            self._next()

    async def indexed(self) -> None:
        """Wait until the words of all messages that are committed now are indexed: done between two batches.

        Raises:
            Refused: UNAVAILABLE.
        """
        self._refuse_if_closing()
        search = self._loop.create_future()
        self._searches.append(search)
        if self._idle.is_set():
            self._idle.clear()
            self._go_on()
        await search

    def figures(self) -> dict[str, float]:
        return {"waiting_changes": len(self._waiting), "commits": self._commits, "changes": self._changes}

    async def close(self) -> None:
        """Take no more, commit what waits, and let go of the file."""
        self._closing = True
        await self._idle.wait()
        self._todo.put(None)
        await asyncio.to_thread(self._thread.join)

    def _refuse_if_closing(self) -> None:
        if self._closing:
            raise Refused(Code.UNAVAILABLE, "the store is being closed", rule="store.closed", retry_after=1)

    def _work(self) -> None:
        while (todo := self._todo.get()) is not None:
            todo()
        if self._connection is not None:
            self._connection.close()

    def _next(self) -> None:
        """Carry out what waits: after this turn of the loop, so that what has come in with it is not committed apart; where
        changes came together, when those that were just answered have asked again: three turns later, for their answers
        go out in one, their requests come in in the next and reach this place in the third.
        """
        if self._owed > _PAUSE:  # SQLite's locks know no queue: whoever polls them gets a turn only while they are free
            self._owed = 0.0
            self._loop.call_later(_PAUSE, self._begin)
        elif self._together > 1:
            self._loop.call_soon(self._loop.call_soon, self._loop.call_soon, self._begin)
        else:
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        batch, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]
        self._together, began = len(batch), time.monotonic()
        planned = self._written_at_once(batch)
        if planned is not None and self._usual < _QUICK:
            self._settle(batch, *self._finished(batch, planned), time.monotonic() - began)
        else:
            self._todo.put(partial(self._finish, batch, planned, began))

    def _written_at_once(self, batch: list[Waiting]) -> Batch | None:
        """Write all of it but for the commit; None when it takes more than what the last commit left, or a wait."""
        connection, asks = self._connection, [waiting.ask for waiting in batch]
        known = self._recent.known(asks, self._rates, {})
        if connection is None or known is None:
            return None
        try:
            connection.execute("BEGIN IMMEDIATE")
            if self._is_last_of_all(connection):
                planned = self._planned_at_once(connection, batch, asks, known)
                write_all(connection, planned.rows())
                return planned
        except Exception:  # the thread will meet it again, and see to it
            self._recent = Recent()
        with suppress(sqlite3.Error):
            connection.rollback()
        return None

    def _planned_at_once(
        self, connection: sqlite3.Connection, batch: list[Waiting], asks: list[Ask], known: Loaded
    ) -> Batch:
        """Plan without looking idempotency keys up: a message under one that was used is refused by its index. Who posts
        nothing may be one who asks again, and is planned anew with what the keys stand for.
        """
        planned = planned_together(batch, known, self._clock())
        again = None if planned.validated(asks) else self._recent.known(asks, self._rates, {})
        if again is None:
            return planned
        again.fill(keys=_remembered(connection, Wanted(asks)))
        return planned_together(batch, again, self._clock())

    def _finish(self, batch: list[Waiting], planned: Batch | None, began: float) -> None:
        done, news = self._finished(batch, planned)
        self._loop.call_soon_threadsafe(self._settle, batch, done, news, time.monotonic() - began)

    def _finished(self, batch: list[Waiting], planned: Batch | None) -> _Done:
        """Commit what is written, or do all of it."""
        if planned is None or self._connection is None:
            done = self._carried_out(batch)
            if self._connection is not None:
                self._connection.execute(_NOT_WAITING)
            return done
        try:
            self._commit(self._connection, batch, planned)
        except Exception as error:
            return [Outcome(None, unavailable(error))] * len(batch), {}
        return planned.outcomes, planned.news

    def _settle(self, batch: list[Waiting], done: list[Outcome[Any]], news: dict[str, int], seconds: float) -> None:
        for waiting, outcome in zip(batch, done, strict=True):
            if not waiting.future.done():  # who asked may have gone
                waiting.future.set_result(outcome)
        self._announce(news)
        if self._waiting:
            self._owed += _PAUSE_SHARE * min(seconds, 0.1)
        if self._commits - self._checkpointed >= _COMMITS_A_CHECKPOINT:
            self._checkpointed = self._commits
            self._todo.put(self._checkpoint)
        elif self._searches:
            self._index()
        else:
            self._go_on()

    def _go_on(self) -> None:
        if self._waiting:
            self._next()
        elif self._searches:
            self._index()
        else:
            self._owed = 0.0
            self._idle.set()

    def _checkpoint(self) -> None:
        """Index words, and copy what was committed from the log into the file: milliseconds, in which the loop answers and
        reads. Of either, a later commit tries again."""
        if self._connection is not None:
            with suppress(Exception):
                index(self._connection)
            with suppress(sqlite3.Error):  # what was committed stands in the log as well
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._loop.call_soon_threadsafe(self._go_on)

    def _index(self) -> None:
        searches, self._searches = self._searches, []
        self._todo.put(partial(self._index_for, searches))

    def _index_for(self, searches: list[asyncio.Future[None]]) -> None:
        refused: Refused | None = None
        try:
            connection = self._connected()
            connection.execute(_WAITING)
            index(connection)
            connection.execute(_NOT_WAITING)
        except Exception as error:
            refused = unavailable(error)
            if self._connection is not None:
                self._undo(self._connection, error)
        self._loop.call_soon_threadsafe(self._let_search, searches, refused)

    def _let_search(self, searches: list[asyncio.Future[None]], refused: Refused | None) -> None:
        for search in searches:
            if search.done():  # who asked may have gone
                continue
            if refused is not None:
                search.set_exception(refused)
            else:
                search.set_result(None)
        self._go_on()

    def _carried_out(self, batch: list[Waiting]) -> _Done:
        try:
            planned = self._committed(batch)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, _OF_CONTENT):
                return [Outcome(None, unavailable(error))] * len(batch), {}
            if len(batch) == 1:
                return [Outcome(None, error)], {}
            outcomes: list[Outcome[Any]] = []
            news: dict[str, int] = {}
            for one in batch:  # one of them can't be written: each for itself then
                done, more = self._carried_out([one])
                outcomes += done
                news |= more
            return outcomes, news
        return planned.outcomes, planned.news

    def _committed(self, batch: list[Waiting]) -> Batch:
        connection = self._connected()
        try:
            connection.execute(_WAITING)
            connection.execute("BEGIN IMMEDIATE")
            self._is_last_of_all(connection)
            known = _loaded(connection, [waiting.ask for waiting in batch])
            planned = planned_together(batch, known, self._clock())
            write_all(connection, planned.rows())
        except BaseException as error:
            self._undo(connection, error)
            raise
        self._commit(connection, batch, planned)
        return planned

    def _is_last_of_all(self, connection: sqlite3.Connection) -> bool:
        """Tell whether nobody else has written since the last commit; forget what is known when somebody has."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return True
        self._version, self._recent, self._rates = version, Recent(), RecentRates()
        return False

    def _commit(self, connection: sqlite3.Connection, batch: list[Waiting], planned: Batch) -> None:
        began = time.monotonic()
        try:
            connection.execute("COMMIT")
        except BaseException as error:
            self._undo(connection, error)
            raise
        self._usual += (time.monotonic() - began - self._usual) / 16
        asks = [waiting.ask for waiting in batch]
        self._recent.forget(asks)
        self._recent.remember(planned.known, asks)
        self._rates.keep(planned.known.rates)
        self._commits += 1
        self._changes += len(batch)

    def _undo(self, connection: sqlite3.Connection, error: BaseException) -> None:
        self._recent = Recent()
        with suppress(sqlite3.Error):
            connection.rollback()
        if not isinstance(error, _OF_CONTENT):
            connection.close()
            self._connection = None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connected(self._path)
            self._connection.execute("PRAGMA synchronous = FULL")
        return self._connection


def connected(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri(path, "rw"), uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    return connection


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
