"""The bridge's store in the state directory's `kloros.db`, beside what the ticks keep there.

One lane writes: whatever waits when it is free shares a transaction and a sync to disk. Readers have connections of
their own, and never wait for it (https://www.sqlite.org/wal.html). Other processes write too, ticks and klorosctl: under
load the lane leaves pauses in which SQLite's polling locks let them in, and waiters for news look at the file's
`data_version` (https://www.sqlite.org/pragma.html#pragma_data_version).
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar, cast

from orchestration.bridge.census import Tally
from orchestration.bridge.refusal import Refused
from orchestration.bridge.state import (
    Answer,
    Ask,
    ChainsVerified,
    Plan,
    Reading,
    ReadingText,
)
from orchestration.bridge.store import counting, rows
from orchestration.bridge.store.batch import Outcome, settle
from orchestration.bridge.store.lookups import Clock, Lookups, Waiting, outdated, unavailable, utc_now
from orchestration.bridge.store.news import News
from orchestration.bridge.store.sqlite_file import connected
from orchestration.bridge.store.sqlite_lane import SqliteLane
from orchestration.bridge.store.sqlite_words import searchable
from orchestration.bridge.store.unread import Unread
from orchestration.bridge.store.verification import verified
from orchestration.bridge.wire import AuditEntry, Message
from orchestration.bridge.words import words
from orchestration.host import tasks
from orchestration.store.port import Value
from orchestration.store.queries import sql
from orchestration.store.sqlite import SCHEMA_VERSION, SqliteDatabase

_READERS = 4
_LOOK_SECONDS = 0.05
_Seen = TypeVar("_Seen")
_Look = Callable[[sqlite3.Connection], _Seen]


class SqliteStore(Lookups):
    """A `Store` over one SQLite file; belongs to the event loop that opened it."""

    def __init__(self, path: str, *, clock: Clock = utc_now) -> None:
        """Create or migrate the file, and start its writer.

        Raises:
            StoreUnreachable, Unwritable: it can't be opened or migrated.
        """
        SqliteDatabase(path).close()
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._news = News()
        self._unread = Unread()
        self._lane = SqliteLane(path, clock, self._news.announce)
        self._readers = _Readers(path)
        self._watching = self._loop.create_task(self._watch())

    async def change(self, ask: Ask, plan: Plan[Answer]) -> Answer:
        """Hand it to the writer, and wait until it is on disk."""
        future: asyncio.Future[Outcome[Answer]] = self._loop.create_future()
        self._lane.take(Waiting(ask, plan, future))
        return settle(await future)

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
                messages=(found["messages"] or "[]").encode(),
                next_seq=found["last"] or since_seq,
            )

        return await self._look(look)

    async def search(
        self, query: str, *, workspace_id: str, thread_id: str | None = None, participant: str | None = None, limit: int = 50
    ) -> tuple[Message, ...]:
        """Search by the words of bodies, those of what was just committed too."""
        wanted = words(query)
        if not wanted:
            return ()
        found = await self._rows(
            "bridge_sqlite.search",
            words=" AND ".join(f'"{word}"' for word in wanted),
            wanted=" ".join(wanted),
            workspace_id=workspace_id,
            thread_id=thread_id,
            participant=participant,
            limit=limit,
        )
        return tuple(map(rows.message, found))

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

    async def count(self, tally: Tally) -> None:
        """Count messages."""
        await counting.count(self._rows, "census_sqlite.posted", tally)

    async def check(self) -> None:
        """Read the file, and see that its tables are still those of this program."""
        await self._rows("bridge.thread", thread_id="")
        ((version,),) = await self._look(lambda connection: connection.execute("PRAGMA user_version").fetchall())
        if version != SCHEMA_VERSION:
            raise outdated()

    def figures(self) -> Mapping[str, float]:
        """Count."""
        lane = self._lane
        return {"waiting_changes": lane.queued, "commits": lane.commits, "changes": lane.changes, "waiters": len(self._news)}

    async def close(self) -> None:
        """Commit what waits, and close the file."""
        await tasks.end([self._watching])
        await self._lane.close()
        await asyncio.to_thread(self._readers.close)

    async def _rows(self, name: str, **parameters: Value) -> list[Any]:
        return await self._look(lambda connection: connection.execute(sql(name), parameters).fetchall())

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
            raise unavailable(error) from error

    def close(self) -> None:
        self.threads.shutdown()
        self.watcher.shutdown()
        for connection in self._open:
            connection.close()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = searchable(connected(self._path))
            self._own.connection = connection
            self._open.add(connection)
        return connection

    def _drop(self) -> None:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is not None:
            self._open.discard(connection)
            connection.close()
        self._own.connection = None
