"""The bridge's store in the state directory's `kloros.db`, beside what the ticks keep there.

One thread writes: whatever waits when it is free shares a transaction and a sync to disk. Readers have connections of
their own, and never wait for it (https://www.sqlite.org/wal.html). Other processes write too, ticks and klorosctl: under
load the writer leaves pauses in which SQLite's polling locks let them in, and waiters for news look at the file's
`data_version` (https://www.sqlite.org/pragma.html#pragma_data_version).
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from orchestration.bridge.census import Census, Tally
from orchestration.bridge.chain import Head, workspace_chain
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import (
    Answer,
    Ask,
    ChainsVerified,
    FoundFinding,
    Plan,
    Reading,
    ReadingText,
    Session,
    ThreadRow,
    Trigger,
)
from orchestration.bridge.store import counting, rows
from orchestration.bridge.store.batch import Batch, Loaded, Outcome, Wanted, settle
from orchestration.bridge.store.news import News
from orchestration.bridge.store.recent import Recent, RecentRates
from orchestration.bridge.store.verification import verified
from orchestration.bridge.wire import AuditEntry, Message, Participant, ThreadListed, ThreadStatus
from orchestration.bridge.words import words
from orchestration.host import tasks
from orchestration.store.port import Value
from orchestration.store.queries import sql
from orchestration.store.sqlite import SCHEMA_VERSION, SqliteDatabase, uri

_BUSY_SECONDS = 3.0
_MOST_TOGETHER = 512
_READERS = 4
_LOOK_SECONDS = 0.05
_PAUSE_SHARE = 0.1
"""Of a busy writer's time that it leaves to other processes."""
_OF_CONTENT = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
_Seen = TypeVar("_Seen")
_Look = Callable[[sqlite3.Connection], _Seen]


class _Waiting(NamedTuple):
    ask: Ask
    plan: Plan[Any]
    future: asyncio.Future[Outcome[Any]]


def utc_now() -> datetime:
    """Return now."""
    return datetime.now(UTC)


class SqliteStore:
    """A `Store` over one SQLite file; belongs to the event loop that opened it."""

    def __init__(self, path: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Create or migrate the file, and start its writer.

        Raises:
            StoreUnreachable, Unwritable: it can't be opened or migrated.
        """
        SqliteDatabase(path).close()
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._news = News()
        self._writer = _Writer(path, clock, self._loop, self._settle)
        self._readers = _Readers(path)
        self._watching = self._loop.create_task(self._watch())

    async def change(self, ask: Ask, plan: Plan[Answer]) -> Answer:
        """Hand it to the writer, and wait until it is on disk."""
        future: asyncio.Future[Outcome[Answer]] = self._loop.create_future()
        self._writer.take(_Waiting(ask, plan, future))
        return settle(await future)

    async def thread(self, thread_id: str) -> ThreadRow | None:
        """Look a thread up."""
        found = await self._rows("bridge.thread", thread_id=thread_id)
        return rows.thread(found[0]) if found else None

    async def participants(self, thread_id: str) -> tuple[Participant, ...]:
        """Look up who is in it."""
        return tuple(map(rows.participant, await self._rows("bridge.participants", thread_id=thread_id)))

    async def threads(
        self,
        *,
        workspace_id: str | None,
        status: ThreadStatus | None = None,
        participant: str | None = None,
        reader: str = "",
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[ThreadListed, ...]:
        """List a page of threads."""
        found = await self._rows(
            "bridge.threads",
            workspace_id=workspace_id,
            status=status,
            participant=participant,
            reader=reader,
            after=after,
            limit=limit,
        )
        return tuple(map(rows.listed, found))

    async def read(self, thread_id: str, *, reader: str, since_seq: int, limit: int) -> Reading:
        """Read thread, place and messages."""

        def look(connection: sqlite3.Connection) -> Reading:
            place = connection.execute(sql("bridge.place"), {"thread_id": thread_id, "reader": reader}).fetchone()
            if place is None:
                return Reading(thread=None, member=None, messages=())
            asked = {"thread_id": thread_id, "since_seq": since_seq, "limit": limit}
            found = connection.execute(sql("bridge.messages"), asked).fetchall()
            return Reading(
                thread=rows.thread(place),
                member=None if place["agent_id"] is None else rows.member(place),
                messages=tuple(map(rows.message, found)),
            )

        return await self._look(look)

    async def read_text(
        self, thread_id: str, *, reader: str, since_seq: int, limit: int, sees_all: bool = True
    ) -> ReadingText:
        """Let SQLite write the JSON."""

        def look(connection: sqlite3.Connection) -> ReadingText:
            place = connection.execute(sql("bridge.place"), {"thread_id": thread_id, "reader": reader}).fetchone()
            asked = {"thread_id": thread_id, "reader": reader, "since_seq": since_seq, "limit": limit, "sees_all": sees_all}
            found = connection.execute(sql("bridge_sqlite.read_text"), asked).fetchone()
            return ReadingText(
                thread=None if place is None else rows.thread(place),
                member=None if place is None or place["agent_id"] is None else rows.member(place),
                messages=found["messages"] or "[]",
                next_seq=found["last"] or since_seq,
            )

        return await self._look(look)

    async def search(
        self, query: str, *, workspace_id: str, thread_id: str | None = None, participant: str | None = None, limit: int = 50
    ) -> tuple[Message, ...]:
        """Search by the words of bodies."""
        wanted = words(query)
        if not wanted:
            return ()
        found = await self._rows(
            "bridge_sqlite.search",
            words=" AND ".join(f'"{word}"' for word in wanted),
            workspace_id=workspace_id,
            thread_id=thread_id,
            participant=participant,
            limit=limit,
        )
        return tuple(map(rows.message, found))

    async def findings(self, thread_id: str) -> tuple[FoundFinding, ...]:
        """Look up the findings of a thread."""
        found = await self._rows("bridge.findings", thread_id=thread_id)
        return tuple(FoundFinding(finding=rows.finding(row), body=str(row["body"]), to=row["addressee"]) for row in found)

    async def wait_for_news(self, thread_id: str, *, since_seq: int, seconds: float) -> bool:
        """Wait for the writer here, or for the file to change."""

        async def last_seq() -> int:
            found = await self.thread(thread_id)
            return found.last_seq if found else 0

        return await self._news.wait(thread_id, since_seq, seconds, last_seq)

    async def audit(
        self, *, workspace_id: str | None, thread_id: str | None = None, after: int = 0, limit: int = 50
    ) -> tuple[AuditEntry, ...]:
        """Read a page of the audit; entries are numbered in the order of commit."""
        query = "bridge.audit" if thread_id is None else "bridge.audit_of_thread"
        more = {} if thread_id is None else {"thread_id": thread_id}
        found = await self._rows(query, workspace_id=workspace_id, after=after, limit=limit, **more)
        return tuple(map(rows.audit_entry, found))

    async def verify(self) -> ChainsVerified:
        """Walk the chains in one read transaction."""

        def walk(connection: sqlite3.Connection) -> ChainsVerified:
            connection.execute("BEGIN")
            try:
                heads = connection.execute(sql("bridge.audit_heads")).fetchall()

                def page(chain: str, link: int, limit: int) -> list[Any]:
                    asked = {"chain": chain, "link": link, "limit": limit}
                    return connection.execute(sql("bridge.audit_links"), asked).fetchall()

                walking = verified(heads)
                try:
                    step = next(walking)
                    while True:
                        step = walking.send(page(*step))
                except StopIteration as end:
                    return cast("ChainsVerified", end.value)
            finally:
                connection.rollback()

        return await self._look(walk)

    async def sessions(self, workspace_id: str, agent_id: str | None = None) -> tuple[Session, ...]:
        """Look sessions up."""
        return tuple(map(rows.session, await self._rows("bridge.sessions", workspace_id=workspace_id, agent_id=agent_id)))

    async def triggers(self, thread_id: str, *, limit: int = 20) -> tuple[Trigger, ...]:
        """Look triggers up."""
        return tuple(map(rows.trigger, await self._rows("bridge.triggers", thread_id=thread_id, limit=limit)))

    async def revoked(self, now: datetime) -> frozenset[str]:
        """Look up which tokens count no more."""
        return frozenset(str(row["token_id"]) for row in await self._rows("bridge.revoked", now=rows.text(now)))

    async def census(self, now: datetime) -> Census:
        """Look at all threads."""
        return await counting.census(self._rows, self.participants, now)

    async def count(self, tally: Tally) -> None:
        """Count messages."""
        await counting.count(self._rows, "census_sqlite.posted", tally)

    async def check(self) -> None:
        """Read the file, and see that its tables are still those of this program."""
        await self._rows("bridge.thread", thread_id="")
        ((version,),) = await self._look(lambda connection: connection.execute("PRAGMA user_version").fetchall())
        if version != SCHEMA_VERSION:
            told = "another release has changed the store's tables; restart the service to run that one"
            raise Refused(Code.UNAVAILABLE, told, rule="store.outdated", retry_after=10)

    def figures(self) -> Mapping[str, float]:
        """Count."""
        return {**self._writer.figures(), "waiters": len(self._news)}

    async def close(self) -> None:
        """Commit what waits, and close the file."""
        await tasks.end([self._watching])
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._readers.close)

    def _settle(self, done: list[tuple[asyncio.Future[Outcome[Any]], Outcome[Any]]], news: dict[str, int]) -> None:
        for future, outcome in done:
            if not future.done():  # who asked may have gone
                future.set_result(outcome)
        self._news.announce(news)

    async def _rows(self, query: str, **parameters: Value) -> list[Any]:
        return await self._look(lambda connection: connection.execute(sql(query), parameters).fetchall())

    async def _look(self, look: _Look[_Seen]) -> _Seen:
        return await self._loop.run_in_executor(self._readers.threads, self._readers.look, look)

    async def _watch(self) -> None:
        """Announce what other processes write, while somebody waits."""
        seen = -1
        while True:
            await self._news.somebody_waits()
            with suppress(Refused):
                seen = await self._look_for_news(seen)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look_for_news(self, seen: int) -> int:
        watched = rows.written(self._news.watched())

        def look(connection: sqlite3.Connection) -> tuple[int, dict[str, int]]:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version == seen:
                return seen, {}
            found = connection.execute(sql("bridge_sqlite.last_seqs"), {"ids": watched}).fetchall()
            return int(version), {row["thread_id"]: row["last_seq"] for row in found}

        version, news = await self._loop.run_in_executor(self._readers.watcher, self._readers.look, look)
        self._news.announce(news)
        return version


class _Readers:
    """Connections that only look, one a thread; opened when first asked, and anew after a fault."""

    def __init__(self, path: str) -> None:
        self.threads = ThreadPoolExecutor(_READERS, "bridge-read")
        self.watcher = ThreadPoolExecutor(1, "bridge-watch")
        self._path = path
        self._own = threading.local()
        self._open: set[sqlite3.Connection] = set()

    def look(self, look: _Look[_Seen]) -> _Seen:
        try:
            return look(self._connection())
        except sqlite3.Error as error:
            self._drop()
            raise _unavailable(error) from error

    def close(self) -> None:
        self.threads.shutdown()
        self.watcher.shutdown()
        for connection in self._open:
            connection.close()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = _connected(self._path)
            connection.execute("PRAGMA query_only = ON")
            self._own.connection = connection
            self._open.add(connection)
        return connection

    def _drop(self) -> None:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is not None:
            self._open.discard(connection)
            connection.close()
        self._own.connection = None


class _Writer:
    """The one thread that writes."""

    def __init__(
        self,
        path: str,
        clock: Callable[[], datetime],
        loop: asyncio.AbstractEventLoop,
        settle: Callable[[list[tuple[asyncio.Future[Outcome[Any]], Outcome[Any]]], dict[str, int]], None],
    ) -> None:
        self._path = path
        self._clock = clock
        self._loop = loop
        self._settle = settle
        self._waiting: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._connection: sqlite3.Connection | None = None
        self._commits = self._changes = 0
        self._version = -1
        self._recent, self._rates = Recent(), RecentRates()
        self._thread = threading.Thread(target=self._work, name="bridge-write", daemon=True)
        self._thread.start()

    def take(self, waiting: _Waiting) -> None:
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
            if self._waiting:
                time.sleep(_PAUSE_SHARE * min(time.monotonic() - began, 0.1))
        if self._connection is not None:
            self._connection.close()

    def _next(self) -> list[_Waiting]:
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._closing)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]

    def _carried_out(self, batch: list[_Waiting]) -> tuple[list[Outcome[Any]], dict[str, int]]:
        try:
            planned = self._committed(batch)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, _OF_CONTENT):
                return [Outcome(None, _unavailable(error))] * len(batch), {}
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

    def _committed(self, batch: list[_Waiting]) -> Batch:
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
            _look_keys_up(connection, Wanted(asks), known)
        return known

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connected(self._path)
            self._connection.execute("PRAGMA synchronous = FULL")
        return self._connection


def _connected(path: str) -> sqlite3.Connection:
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


def _look_keys_up(connection: sqlite3.Connection, wanted: Wanted, loaded: Loaded) -> None:
    for row in _found(connection, "keys", wanted.keys):
        loaded.keys[row["thread_id"], row["sender"], row["idempotency_key"]] = rows.remembered(row)


def _loaded(connection: sqlite3.Connection, asks: Iterable[Ask]) -> Loaded:
    wanted, loaded = Wanted(asks), Loaded()
    found = partial(_found, connection)

    for row in found("threads", wanted.threads, "ids"):
        loaded.threads[row["thread_id"]] = rows.thread(row)
        loaded.heads[row["thread_id"]] = Head(row["links"], row["head"])
        loaded.versions[row["thread_id"]] = row["version"]
    for row in found("members", wanted.threads, "ids"):
        loaded.members.setdefault(row["thread_id"], {})[row["agent_id"]] = rows.member(row)
    for row in found("rates", wanted.agents):
        loaded.rates[row["workspace_id"], row["agent_id"]] = rows.rate(row)
    _look_keys_up(connection, wanted, loaded)
    for row in found("findings", wanted.findings):
        loaded.findings[row["thread_id"], row["finding_id"]] = rows.finding(row)
    for row in found("replies", wanted.replies, "ids"):
        loaded.replies[row["message_id"]] = row["thread_id"]
    for row in found("sessions", wanted.sessions):
        loaded.sessions[row["workspace_id"], row["agent_id"], row["session_id"]] = rows.session(row)
    for row in found("heads", loaded.chains_to_lock(asks), "ids"):
        loaded.heads[workspace_chain(row["workspace_id"])] = Head(row["links"], row["head"])
    return loaded


def _unavailable(error: Exception) -> Refused:
    """Say so without what the error tells of paths and statements; it stays with it as the cause, for the log."""
    refused = Refused(Code.UNAVAILABLE, "the store can't be used now; try again", rule="store.unavailable", retry_after=1)
    refused.__cause__ = error
    return refused
