"""The one thread that writes to SQLite: whatever waits when it is free shares a transaction and a sync to disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from orchestration.bridge.chain import Head, workspace_chain
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Ask
from orchestration.bridge.store import rows
from orchestration.bridge.store.batch import Batch, Loaded, Outcome, Wanted
from orchestration.bridge.store.lookups import Clock, Waiting, unavailable
from orchestration.bridge.store.recent import Recent, RecentRates
from orchestration.bridge.words import words
from orchestration.store.queries import sql
from orchestration.store.sqlite import uri

_BUSY_SECONDS = 3.0
_MOST_TOGETHER = 512
_PAUSE_SHARE = 0.1
"""Of a busy writer's time that it leaves to other processes."""
_OF_CONTENT = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)


class Writer:
    """The one thread that writes."""

    def __init__(
        self,
        path: str,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        settle: Callable[[list[tuple[asyncio.Future[Outcome[Any]], Outcome[Any]]], dict[str, int]], None],
    ) -> None:
        self._path = path
        self._clock = clock
        self._loop = loop
        self._settle = settle
        self._waiting: deque[Waiting] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._connection: sqlite3.Connection | None = None
        self._commits = self._changes = 0
        self._version = -1
        self._recent, self._rates = Recent(), RecentRates()
        self._thread = threading.Thread(target=self._work, name="bridge-write", daemon=True)
        self._thread.start()

    def take(self, waiting: Waiting) -> None:
        with self._wake:
            if self._closing:
                raise Refused(Code.UNAVAILABLE, "the store is being closed", rule="store.closed", retry_after=1)
            self._waiting.append(waiting)
            self._wake.notify()

    def figures(self) -> dict[str, float]:
        return {"waiting_changes": len(self._waiting), "commits": self._commits, "changes": self._changes}

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            began = time.monotonic()
            done, news = self._carried_out(batch)
            self._loop.call_soon_threadsafe(
                self._settle, [(w.future, outcome) for w, outcome in zip(batch, done, strict=True)], news
            )
            if self._waiting:  # SQLite's locks know no queue: whoever polls them gets a turn only while they are free
                time.sleep(_PAUSE_SHARE * min(time.monotonic() - began, 0.1))
        if self._connection is not None:
            self._connection.close()

    def _next(self) -> list[Waiting]:
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._closing)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]

    def _carried_out(self, batch: list[Waiting]) -> tuple[list[Outcome[Any]], dict[str, int]]:
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
        self._commits += 1
        self._changes += len(batch)
        return planned.outcomes, planned.news

    def _committed(self, batch: list[Waiting]) -> Batch:
        connection = self._connected()
        try:
            connection.execute("BEGIN IMMEDIATE")
            asks = [waiting.ask for waiting in batch]
            planned = Batch(self._known(connection, asks) or _loaded(connection, asks))
            for waiting in batch:
                planned.add(waiting.ask, waiting.plan, self._clock())
            for name, lines in planned.rows().lists().items():
                if name == "removed":
                    _remove(connection, lines)
                    continue
                connection.executemany(sql(f"bridge_sqlite.write_{name}"), lines)
                if name == "posts":
                    connection.executemany(sql("bridge_sqlite.write_words"), lines)
            connection.execute("COMMIT")
            self._recent.forget(asks)
            self._recent.remember(planned.known, asks)
            self._rates.keep(planned.known.rates)
        except BaseException as error:
            self._recent = Recent()
            with suppress(sqlite3.Error):
                connection.rollback()
            if not isinstance(error, _OF_CONTENT):
                connection.close()
                self._connection = None
            raise
        return planned

    def _known(self, connection: sqlite3.Connection, asks: list[Ask]) -> Loaded | None:
        """Return what the last commits left, unless anybody else has written since; keys are looked up."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version, self._recent, self._rates = version, Recent(), RecentRates()
        known = self._recent.known(asks, self._rates)
        if known is not None:
            known.fill(keys=_found(connection, "keys", Wanted(asks).keys))
        return known

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


def _remove(connection: sqlite3.Connection, threads: list[rows.Row]) -> None:
    for thread in threads:
        # The index keeps no text: what is to go from it must be told again.
        for number, body in connection.execute(sql("bridge_sqlite.bodies"), thread).fetchall():
            told = {"number": number, "words": " ".join(words(body))}
            connection.execute(sql("bridge_sqlite.remove_words"), told)
        for part in ("messages", "participants", "findings", "triggers", "audit", "thread"):
            connection.execute(sql(f"bridge_sqlite.remove_{part}"), thread)


def _found(connection: sqlite3.Connection, query: str, keys: Iterable[object], name: str = "keys") -> Iterable[Any]:
    keys = list(keys)
    return connection.execute(sql(f"bridge_sqlite.{query}"), {name: rows.written(keys)}).fetchall() if keys else ()


def _loaded(connection: sqlite3.Connection, asks: Iterable[Ask]) -> Loaded:
    wanted, loaded = Wanted(asks), Loaded()
    found = partial(_found, connection)
    loaded.fill(
        threads=found("threads", wanted.threads, "ids"),
        members=found("members", wanted.threads, "ids"),
        rates=found("rates", wanted.agents),
        keys=found("keys", wanted.keys),
        findings=found("findings", wanted.findings),
        sessions=found("sessions", wanted.sessions),
    )
    for row in found("replies", wanted.replies, "ids"):
        loaded.replies[row["message_id"]] = row["thread_id"]
    for row in found("heads", loaded.chains_to_lock(asks), "ids"):
        loaded.heads[workspace_chain(row["workspace_id"])] = Head(row["links"], row["head"])
    return loaded
