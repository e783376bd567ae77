"""The bridge's store in PostgreSQL 15 or later.

Writing is cut into lanes by thread; each has a connection and one transaction under way, and whatever waits for a lane
meanwhile shares the next. A transaction is two round trips: lock and load, write and commit; between them the plans run.
Reading goes over a pool. When the server is gone everything is refused at once while one task tries to reach it again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, TypeVar, cast

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout
from pydantic_core import to_json

from orchestration.bridge.census import Tally
from orchestration.bridge.chain import workspace_chain
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
from orchestration.bridge.store.postgres_lane import TRANSIENT, PostgresLane
from orchestration.bridge.store.postgres_line import Line
from orchestration.bridge.store.postgres_reads import Asked, SharedReads
from orchestration.bridge.store.recent import RecentRates
from orchestration.bridge.store.unread import Unread
from orchestration.bridge.store.verification import verified
from orchestration.bridge.wire import AuditEntry, Message
from orchestration.bridge.words import words
from orchestration.host import tasks
from orchestration.store.postgres import PATIENCE, SCHEMA_VERSION, Connection, connected, migrate, query

_LANES = 4
_READERS = 8
_READ_LINES = 2
_CHECKOUT_SECONDS = 2.0
_PROBE_SECONDS = 0.2
_LOOK_SECONDS = (1.0, 5.0)
"""How often watched threads are looked at: while nobody listens, and as the guarantee while somebody does."""
_ATTEND_SECONDS = 0.5
_NOTIFY_SECONDS = 0.01
_TOLD_TOGETHER = 100
_CHANNEL = "kloros_bridge"
_Seen = TypeVar("_Seen")


class PostgresStore(Lookups):
    """A `Store` over PostgreSQL; belongs to the event loop that opened it. Make it with `opened`."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._news = News()
        self._unread = Unread()
        self.rates = RecentRates()
        self._untold: dict[str, int] = {}
        self._to_tell = asyncio.Event()
        self._telling = Line(self.connected)
        self._listening = False
        self._pool = self._new_pool()
        self._left = set[asyncio.Future[Any]]()
        """What nobody waits for any more, and `close` must see the end of."""
        self._probing: asyncio.Task[None] | None = None
        self._lanes = [PostgresLane(self) for _ in range(_LANES)]
        lines = [Line(self.connected) for _ in range(_READ_LINES)]
        self._reading = SharedReads(lines, partial(self._rows, "bridge_postgres.read_text"))
        self._lines = [self._telling, *lines, *(lane.line for lane in self._lanes)]
        self._tasks: list[asyncio.Task[None]] = []
        self._attending: asyncio.Task[None] | None = None

    @classmethod
    async def opened(cls, url: str, *, clock: Clock = utc_now) -> PostgresStore:
        """Migrate the database, and start.

        Raises:
            StoreUnreachable: it can't be reached or migrated.
        """
        await migrate(url)
        store = cls(url, clock)
        await store._pool.open()
        work: list[Callable[[], Awaitable[None]]] = [store._watch, store._listen, store._tell]
        store._tasks = [asyncio.ensure_future(todo()) for todo in work]
        store._attending = asyncio.ensure_future(store._attend())
        return store

    async def change(self, ask: Ask, plan: Plan[Answer]) -> Answer:
        """Hand it to its thread's lane, and wait until it is on disk."""
        self._refuse_while_down()
        future: asyncio.Future[Outcome[Answer]] = asyncio.get_running_loop().create_future()
        key = ask.thread_id or workspace_chain(ask.workspace_id or "")
        self._lanes[hash(key) % len(self._lanes)].take(Waiting(ask, plan, future))
        return settle(await future)

    async def read(self, thread_id: str, *, reader: str, since_seq: int, limit: int) -> Reading:
        """Read thread, place and messages in one round trip; messages are looked at last, so none is skipped."""
        text = f"{query('bridge.place')} {query('bridge.messages')}"
        asked = {"thread_id": thread_id, "reader": reader, "since_seq": since_seq, "limit": limit}

        async def look(connection: Connection) -> Reading:
            cursor = await connection.execute(text, asked)
            place: Any = await cursor.fetchone()
            cursor.nextset()
            messages: list[Any] = await cursor.fetchall()
            if place is None:
                return Reading(thread=None, member=None, messages=())
            return Reading(
                thread=rows.thread(place),
                member=None if place["agent_id"] is None else rows.member(place),
                messages=tuple(map(rows.message, messages)),
            )

        return await self._look(look)

    async def read_text(
        self, thread_id: str, *, reader: str, since_seq: int, limit: int, sees_all: bool = True
    ) -> ReadingText:
        """Let the server write the JSON; reads that wait together share a query."""
        self._refuse_while_down()
        return await self._reading.read(Asked(thread_id, reader, since_seq, limit, sees_all))

    async def search(
        self, query: str, *, workspace_id: str, thread_id: str | None = None, participant: str | None = None, limit: int = 50
    ) -> tuple[Message, ...]:
        """Search by the words of bodies."""
        wanted = words(query)
        if not wanted:
            return ()
        found = await self._rows(
            "bridge_postgres.search",
            words=" & ".join(f"'{word}'" for word in wanted),
            workspace_id=workspace_id,
            thread_id=thread_id,
            participant=participant,
            limit=limit,
        )
        return tuple(map(rows.message, found))

    async def audit(
        self, *, workspace_id: str | None, thread_id: str | None = None, after: int = 0, limit: int = 50
    ) -> tuple[AuditEntry, ...]:
        """Read a page of the audit. A thread's rows are numbered under its lock; else those under way are waited for."""
        asked = {"workspace_id": workspace_id, "after": after, "limit": limit}
        if thread_id is not None:
            found = await self._rows("bridge.audit_of_thread", thread_id=thread_id, **asked)
            return tuple(map(rows.audit_entry, found))

        async def look(connection: Connection) -> list[Any]:
            try:
                await connection.execute(query("bridge_postgres.settled_audit"))
                cursor = await connection.execute(query("bridge.audit"), asked)
                return await cursor.fetchall()
            finally:
                await connection.rollback()

        return tuple(map(rows.audit_entry, await self._look(look)))

    async def verify(self) -> ChainsVerified:
        """Walk the chains in one snapshot."""

        async def walk(connection: Connection) -> ChainsVerified:
            async with connection.transaction():
                await connection.execute(query("bridge_postgres.one_snapshot"))
                heads: Any = await (await connection.execute(query("bridge.audit_heads"))).fetchall()
                walking = verified(heads)
                try:
                    step = next(walking)
                    while True:
                        asked = dict(zip(("chain", "link", "limit"), step, strict=True))
                        page: Any = await (await connection.execute(query("bridge.audit_links"), asked)).fetchall()
                        step = walking.send(page)
                except StopIteration as end:
                    return cast("ChainsVerified", end.value)

        return await self._look(walk)

    async def count(self, tally: Tally) -> None:
        """Count messages."""
        await counting.count(self._rows, "census_postgres.posted", tally)

    async def check(self) -> None:
        """Ask whether the tables are still those of this program."""
        (found,) = await self._rows("postgres.schema_version")
        if found["version"] != SCHEMA_VERSION:
            raise outdated()

    def figures(self) -> Mapping[str, float]:
        """Count."""
        pool = self._pool.get_stats()
        return {
            "waiting_changes": sum(lane.queued for lane in self._lanes),
            "commits": sum(lane.commits for lane in self._lanes),
            "changes": sum(lane.changes for lane in self._lanes),
            "waiters": len(self._news),
            "pool_size": pool.get("pool_size", 0),
            "pool_available": pool.get("pool_available", 0),
            "pool_waiting": pool.get("requests_waiting", 0),
            "listening": float(self._listening),
            "down": float(self._probing is not None),
        }

    async def close(self) -> None:
        """Commit what waits, and close every connection."""
        for lane in self._lanes:
            await lane.finish()
        await self._reading.close()
        await tasks.end([*self._tasks, *([self._probing] if self._probing else [])])
        for lane in self._lanes:
            await lane.let_go()
        while self._left:
            with suppress(psycopg.Error, OSError, Refused):
                if isinstance(left := await self._left.pop(), psycopg.AsyncConnection):
                    await left.close()
        await self._telling.close()
        await self._pool.close()
        await tasks.end([self._attending] if self._attending else [])  # until here something may wait for an answer

    def committed(self, news: dict[str, int]) -> None:
        """Let those who wait know: here now, in other processes soon."""
        self._news.announce(news)
        self._untold.update(news)
        self._to_tell.set()

    def lost(self, error: Exception) -> Refused:
        """Note that the server can't be reached, see to it that it will be, and say so in a refusal."""
        if self._probing is None:
            self._probing = asyncio.ensure_future(self._probe())
        return unavailable(error)

    def now(self) -> datetime:
        """Read the clock."""
        return self._clock()

    async def connected(self) -> Connection:
        """Open a connection, to be closed by who asked."""
        return await self._unbroken(connected(self._url))

    async def _unbroken(self, work: Coroutine[Any, Any, _Seen]) -> _Seen:
        """Wait for it; who is told to end meanwhile leaves it to `close`.

        psycopg leaves a connection half open when it is cancelled in making it, and opens another to cancel a statement. A
        connection that it returns is closed in the end.
        """
        doing = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            self._left.add(doing)
            raise

    def _new_pool(self) -> AsyncConnectionPool[Any]:
        return AsyncConnectionPool(
            self._url,
            connection_class=psycopg.AsyncConnection,
            kwargs={
                "autocommit": True,
                "prepare_threshold": None,
                "row_factory": psycopg.rows.dict_row,
                "cursor_factory": psycopg.AsyncClientCursor,
                **PATIENCE,
                "client_encoding": "UTF8",
            },
            min_size=1,
            max_size=_READERS,
            timeout=_CHECKOUT_SECONDS,
            open=False,
        )

    def _refuse_while_down(self) -> None:
        if self._probing is not None:
            raise unavailable(None)

    async def _probe(self) -> None:
        """Try to reach the server until it answers; then read over new connections."""
        while True:
            with suppress(psycopg.Error, OSError):
                await self._unbroken(self._reached())
                break
            await asyncio.sleep(_PROBE_SECONDS)
        closing = asyncio.ensure_future(self._pool.close())
        self._left.add(closing)
        closing.add_done_callback(self._left.discard)
        self._pool = self._new_pool()
        await self._pool.open()
        self._probing = None

    async def _reached(self) -> None:
        connection = await connected(self._url)
        try:
            await connection.execute(query("bridge.thread"), {"thread_id": ""})
        finally:
            await connection.close()

    async def _rows(self, name: str, **parameters: Any) -> list[Any]:
        async def look(connection: Connection) -> list[Any]:
            return await (await connection.execute(query(name), parameters)).fetchall()

        return await self._look(look)

    async def _look(self, look: Callable[[Connection], Awaitable[_Seen]]) -> _Seen:
        """Read over a connection of the pool; over another when the first turns out to be dead, or all are replaced."""
        for attempt in range(_READERS + 1):
            self._refuse_while_down()
            try:
                async with self._pool.connection() as connection:
                    try:
                        return await look(connection)
                    except psycopg.OperationalError as error:
                        if not connection.broken or attempt == _READERS:
                            raise
                        dead = error
            except PoolClosed as error:  # which only we do: there is another pool, or the store itself is closed
                if self._pool.closed:
                    raise unavailable(error) from error
                dead = error
            except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, OSError) as error:
                pool = self._pool.get_stats()  # in which connections also count that it can't open
                full = pool.get("pool_size", 0) >= _READERS and not pool.get("connections_errors", 0)
                busy = isinstance(error, PoolTimeout) and full
                if busy or isinstance(error, TRANSIENT):
                    raise unavailable(error) from error
                raise self.lost(error) from error
        raise self.lost(dead)

    async def _watch(self) -> None:
        """Look at the threads that somebody waits for: the guarantee behind the hints."""
        while True:
            await self._news.somebody_waits()
            await asyncio.sleep(_LOOK_SECONDS[self._listening])
            with suppress(Refused):
                await self._unbroken(self._look_for_news())

    async def _attend(self) -> None:
        """See that no answer waits unheard."""
        while True:
            await asyncio.sleep(_ATTEND_SECONDS)
            for line in self._lines:
                line.attend()

    async def _look_for_news(self) -> None:
        found = await self._rows("bridge_postgres.last_seqs", ids=rows.written(self._news.watched()))
        self._news.announce({row["thread_id"]: row["last_seq"] for row in found})

    async def _listen(self) -> None:
        """Hear what other processes tell. A pooler keeps no session that listens: behind one, only `_watch` remains."""
        while True:
            with suppress(psycopg.Error, OSError, Refused):
                connection = await self._unbroken(self._listening_connection())
                if connection is None:
                    return
                try:
                    self._listening = True
                    await self._unbroken(self._look_for_news())
                    async for told in connection.notifies():
                        if told.channel == _CHANNEL:
                            self._news.announce(json.loads(told.payload))
                finally:
                    await connection.close()
            self._listening = False
            await asyncio.sleep(_LOOK_SECONDS[0])

    async def _listening_connection(self) -> Connection | None:
        connection = await connected(self._url)
        try:
            cursor = await connection.execute(query("bridge_postgres.session"))
            if cast("Any", await cursor.fetchone())["pid"] == connection.info.backend_pid:
                await connection.execute(query("bridge_postgres.listen"))
                return connection
        except BaseException:
            await connection.close()
            raise
        await connection.close()
        return None

    async def _tell(self) -> None:
        while True:
            await self._to_tell.wait()
            self._to_tell.clear()
            untold, self._untold = list(self._untold.items()), {}
            for start in range(0, len(untold), _TOLD_TOGETHER):
                with suppress(psycopg.Error, OSError):
                    await self._unbroken(self._told(dict(untold[start : start + _TOLD_TOGETHER])))
            await asyncio.sleep(_NOTIFY_SECONDS)

    async def _told(self, news: dict[str, int]) -> None:
        await self._telling.open()
        await self._telling.asked(self._telling.statement("bridge_postgres.notify", news=to_json(news)))
