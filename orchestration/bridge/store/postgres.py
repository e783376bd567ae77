"""The bridge's store in PostgreSQL 15 or later.

Writing is cut into lanes by thread; each has a connection and one transaction under way, and whatever waits for a lane
meanwhile shares the next. A transaction is two round trips: lock and load, write and commit; between them the plans run.
Reading goes over a pool. When the server is gone everything is refused at once while one task tries to reach it again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

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
from orchestration.bridge.store.sqlite import utc_now
from orchestration.bridge.store.verification import verified
from orchestration.bridge.wire import AuditEntry, Message, Participant, ThreadListed, ThreadStatus
from orchestration.bridge.words import words
from orchestration.host import tasks
from orchestration.store.postgres import PATIENCE, SCHEMA_VERSION, Connection, connected, migrate, query

_LANES = 4
_READERS = 8
_READ_LANES = 2
_READ_TOGETHER = 16
_MOST_TOGETHER = 512
_CHECKOUT_SECONDS = 2.0
_PROBE_SECONDS = 0.2
_LOOK_SECONDS = (1.0, 5.0)
"""How often watched threads are looked at: while nobody listens, and as the guarantee while somebody does."""
_NOTIFY_SECONDS = 0.005
_TOLD_TOGETHER = 100
_CHANNEL = "kloros_bridge"
_TRANSIENT = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.QueryCanceled,
    psycopg.errors.SerializationFailure,
)
_OF_CONTENT = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)
_STALE = "KL001"
_Seen = TypeVar("_Seen")


class _LostOnTheWay(Exception):
    """The connection died with a commit under way."""

    def __init__(self, planned: Batch) -> None:
        super().__init__()
        self.planned = planned


class _Waiting(NamedTuple):
    ask: Ask
    plan: Plan[Any]
    future: asyncio.Future[Outcome[Any]]


class PostgresStore:
    """A `Store` over PostgreSQL; belongs to the event loop that opened it. Make it with `opened`."""

    def __init__(self, url: str, clock: Callable[[], datetime]) -> None:
        self._url = url
        self._clock = clock
        self._news = News()
        self.rates = RecentRates()
        self._untold: dict[str, int] = {}
        self._to_tell = asyncio.Event()
        self._listening = False
        self._pool = self._new_pool()
        self._probing: asyncio.Task[None] | None = None
        self._lanes = [_Lane(self) for _ in range(_LANES)]
        self._reading = _Reading(partial(self._rows, "bridge_postgres.read_text"))
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def opened(cls, url: str, *, clock: Callable[[], datetime] = utc_now) -> PostgresStore:
        """Migrate the database, and start.

        Raises:
            StoreUnreachable: it can't be reached or migrated.
        """
        await migrate(url)
        store = cls(url, clock)
        await store._pool.open()
        work: list[Callable[[], Awaitable[None]]] = [store._watch, store._listen, store._tell]
        work += [lane.work for lane in store._lanes]
        work += [store._reading.work] * _READ_LANES
        store._tasks = [asyncio.ensure_future(todo()) for todo in work]
        return store

    async def change(self, ask: Ask, plan: Plan[Answer]) -> Answer:
        """Hand it to its thread's lane, and wait until it is on disk."""
        self._refuse_while_down()
        future: asyncio.Future[Outcome[Answer]] = asyncio.get_running_loop().create_future()
        key = ask.thread_id or workspace_chain(ask.workspace_id or "")
        self._lanes[hash(key) % len(self._lanes)].take(_Waiting(ask, plan, future))
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
            status=status and status.value,
            participant=participant,
            reader=reader,
            after=after,
            limit=limit,
        )
        return tuple(map(rows.listed, found))

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
        found = await self._reading.read((thread_id, reader, since_seq, limit, sees_all))
        thread, place = found["place"] or (None, None)
        return ReadingText(
            thread=None if thread is None else rows.thread(thread),
            member=None if place is None else rows.member(place),
            messages=found["messages"] or "[]",
            next_seq=found["last"] or since_seq,
        )

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

    async def findings(self, thread_id: str) -> tuple[FoundFinding, ...]:
        """Look up the findings of a thread."""
        found = await self._rows("bridge.findings", thread_id=thread_id)
        return tuple(FoundFinding(finding=rows.finding(row), body=row["body"], to=row["addressee"]) for row in found)

    async def wait_for_news(self, thread_id: str, *, since_seq: int, seconds: float) -> bool:
        """Wait for a commit here, or for another process to tell of one."""

        async def last_seq() -> int:
            found = await self.thread(thread_id)
            return found.last_seq if found else 0

        return await self._news.wait(thread_id, since_seq, seconds, last_seq)

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

    async def sessions(self, workspace_id: str, agent_id: str | None = None) -> tuple[Session, ...]:
        """Look sessions up."""
        return tuple(map(rows.session, await self._rows("bridge.sessions", workspace_id=workspace_id, agent_id=agent_id)))

    async def triggers(self, thread_id: str, *, limit: int = 20) -> tuple[Trigger, ...]:
        """Look triggers up."""
        return tuple(map(rows.trigger, await self._rows("bridge.triggers", thread_id=thread_id, limit=limit)))

    async def revoked(self, now: datetime) -> frozenset[str]:
        """Look up which tokens count no more."""
        return frozenset(row["token_id"] for row in await self._rows("bridge.revoked", now=rows.text(now)))

    async def census(self, now: datetime) -> Census:
        """Look at all threads."""
        return await counting.census(self._rows, self.participants, now)

    async def count(self, tally: Tally) -> None:
        """Count messages."""
        await counting.count(self._rows, "census_postgres.posted", tally)

    async def check(self) -> None:
        """Ask whether the tables are still those of this program."""
        (found,) = await self._rows("postgres.schema_version")
        if found["version"] != SCHEMA_VERSION:
            told = "another release has changed the store's tables; restart the service to run that one"
            raise Refused(Code.UNAVAILABLE, told, rule="store.outdated", retry_after=10)

    def figures(self) -> Mapping[str, float]:
        """Count."""
        pool = self._pool.get_stats()
        return {
            "waiting_changes": sum(len(lane.waiting) for lane in self._lanes),
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
        await tasks.end([*self._tasks, *([self._probing] if self._probing else [])])
        for lane in self._lanes:
            await lane.let_go()
        await self._pool.close()

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
        """Open a connection for one lane."""
        return await connected(self._url)

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
                async with await self.connected() as connection:
                    await connection.execute(query("bridge.thread"), {"thread_id": ""})
                break
            await asyncio.sleep(_PROBE_SECONDS)
        stale, self._pool = self._pool, self._new_pool()
        await self._pool.open()
        self._probing = None
        await stale.close()

    async def _rows(self, name: str, **parameters: Any) -> list[Any]:
        async def look(connection: Connection) -> list[Any]:
            return await (await connection.execute(query(name), parameters)).fetchall()

        return await self._look(look)

    async def _look(self, look: Callable[[Connection], Awaitable[_Seen]]) -> _Seen:
        """Read over a connection of the pool; over another when the first turns out to be dead."""
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
            except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed, OSError) as error:
                busy = isinstance(error, PoolTimeout) and self._pool.get_stats().get("pool_size", 0) >= _READERS
                if busy or isinstance(error, _TRANSIENT):
                    raise unavailable(error) from error
                raise self.lost(error) from error
        raise self.lost(dead)

    async def _watch(self) -> None:
        """Look at the threads that somebody waits for: the guarantee behind the hints."""
        while True:
            await self._news.somebody_waits()
            await asyncio.sleep(_LOOK_SECONDS[self._listening])
            with suppress(Refused):
                await self._look_for_news()

    async def _look_for_news(self) -> None:
        found = await self._rows("bridge_postgres.last_seqs", ids=rows.written(self._news.watched()))
        self._news.announce({row["thread_id"]: row["last_seq"] for row in found})

    async def _listen(self) -> None:
        """Hear what other processes tell. A pooler keeps no session that listens: behind one, only `_watch` remains."""
        while True:
            with suppress(psycopg.Error, OSError, Refused):
                async with await self.connected() as connection:
                    cursor = await connection.execute(query("bridge_postgres.session"))
                    if cast("Any", await cursor.fetchone())["pid"] != connection.info.backend_pid:
                        return
                    await connection.execute(query("bridge_postgres.listen"))
                    self._listening = True
                    await self._look_for_news()
                    async for told in connection.notifies():
                        if told.channel == _CHANNEL:
                            self._news.announce(json.loads(told.payload))
            self._listening = False
            await asyncio.sleep(_LOOK_SECONDS[0])

    async def _tell(self) -> None:
        while True:
            await self._to_tell.wait()
            self._to_tell.clear()
            untold, self._untold = list(self._untold.items()), {}
            for start in range(0, len(untold), _TOLD_TOGETHER):
                with suppress(Refused):
                    news = rows.written(dict(untold[start : start + _TOLD_TOGETHER]))
                    await self._rows("bridge_postgres.notify", news=news)
            await asyncio.sleep(_NOTIFY_SECONDS)


_Asked = tuple[str, str, int, int, bool]


class _Reading:
    """Reads that wait for each other's queries to end share the next: what a query costs us is more than its messages."""

    def __init__(self, ask: Callable[..., Awaitable[list[Any]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[_Asked, asyncio.Future[Any]]] = []
        self._idle: list[asyncio.Future[None]] = []

    async def read(self, asked: _Asked) -> Any:
        """Return the row of one read."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        while self._idle:
            lane = self._idle.pop()
            if not lane.done():
                lane.set_result(None)
                break
        return await future

    async def work(self) -> None:
        """Be one lane."""
        while True:
            if not self._waiting:
                idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
            batch, self._waiting = self._waiting[:_READ_TOGETHER], self._waiting[_READ_TOGETHER:]
            batch = [(asked, future) for asked, future in batch if not future.done()]  # who asked may have gone
            if batch:
                await self._carry_out(batch)

    async def _carry_out(self, batch: list[tuple[_Asked, asyncio.Future[Any]]]) -> None:
        try:
            found: list[Any] = await self._ask(asked=rows.written([asked for asked, _ in batch]))
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, Refused):
                for one in batch:  # one of them can't be read: each for itself then
                    await self._carry_out([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), row in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(row)


class _Lane:
    """Changes of some of the threads, one transaction after the other."""

    def __init__(self, store: PostgresStore) -> None:
        self.waiting: list[_Waiting] = []
        self.commits = self.changes = 0
        self._store = store
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._connection: Connection | None = None
        self._recent = Recent()

    def take(self, waiting: _Waiting) -> None:
        if self._closing:
            raise unavailable(None)
        self.waiting.append(waiting)
        self._idle.clear()
        self._wake.set()

    async def finish(self) -> None:
        self._closing = True
        await self._idle.wait()

    async def let_go(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def work(self) -> None:
        batch: list[_Waiting] = []
        while True:
            await self._wake.wait()
            if len(batch) > 1:  # those that were just answered ask again at once: let what has arrived come in
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            batch, self.waiting = self.waiting[:_MOST_TOGETHER], self.waiting[_MOST_TOGETHER:]
            if not self.waiting:
                self._wake.clear()
            await self._carry_out(batch)
            if not self.waiting:
                self._idle.set()

    async def _carry_out(self, batch: list[_Waiting]) -> None:
        """Commit a batch; when one of it can't be written, or one thread is locked, the others are tried without it."""
        try:
            planned = await self._committed(batch)
        except Exception as error:
            parts = _parts(batch, error)
            if len(parts) > 1:
                for part in parts:
                    await self._carry_out(part)
                return
            if isinstance(error, _LostOnTheWay):
                error = cast("Exception", error.__cause__)
            outcomes: list[Outcome[Any]] = [Outcome(None, self._as_refusal(error))] * len(batch)
        else:
            self.commits += 1
            self.changes += len(batch)
            outcomes = planned.outcomes
            self._store.committed(planned.news)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if not waiting.future.done():  # who asked may have gone
                waiting.future.set_result(outcome)

    def _as_refusal(self, error: Exception) -> Exception:
        if isinstance(error, _TRANSIENT):
            return unavailable(error)
        if isinstance(error, psycopg.Error | OSError) and not isinstance(error, _OF_CONTENT):
            return self._store.lost(error)
        return error

    async def _committed(self, batch: list[_Waiting]) -> Batch:
        asks = [waiting.ask for waiting in batch]
        known = self._recent.known(asks, self._store.rates)
        self._recent.forget(asks)
        try:
            planned = await self._written_at_once(batch, asks, known) if known is not None else None
            if planned is None:
                planned = await self._written_under_lock(batch, asks)
        except _LostOnTheWay as error:
            planned = await self._written_under_lock(batch, asks, error.planned)
        self._recent.remember(planned.known, asks)
        return planned

    async def _written_at_once(self, batch: list[_Waiting], asks: list[Ask], known: Loaded) -> Batch | None:
        """Plan on what the last commit left, and write: one round trip. None when that can't prove the answers."""
        planned = self._planned(batch, known)
        if self._connection is None or self._connection.closed or not planned.validated(asks):
            return None
        try:
            await self._write("bridge_postgres.write", planned, self._connection)
        except psycopg.errors.UniqueViolation:  # a repeat
            return None
        except psycopg.Error as error:
            if error.sqlstate == _STALE:
                return None
            raise
        return planned

    async def _write(self, name: str, planned: Batch, connection: Connection) -> None:
        parameters = _parameters(planned)
        try:
            cursor = await connection.execute(query(name), parameters)
        except psycopg.OperationalError as error:
            if connection.closed:
                raise _LostOnTheWay(planned) from error
            raise
        self._store.rates.learn(cast("Any", await cursor.fetchone())["bridge_write"])

    async def _written_under_lock(self, batch: list[_Waiting], asks: list[Ask], lost: Batch | None = None) -> Batch:
        """Lock, load, plan and write: two round trips, on facts that nobody else can change meanwhile.

        `lost` was written just before its connection died. Under the lock it shows whether it was committed; if it was
        not, it never will be, for the version that it was planned on is passed.
        """
        connection, facts = await self._begun(Wanted(asks))
        try:
            loaded = _loaded(facts)
            chains = loaded.chains_to_lock(asks)
            if chains:
                cursor = await connection.execute(query("bridge_postgres.heads"), {"workspaces": rows.written(chains)})
                for row in cast("Any", await cursor.fetchone())["bridge_heads"]:
                    loaded.heads[workspace_chain(row["workspace_id"])] = Head(row["links"], row["head"])
            if lost is not None and await _stands(lost, connection):
                await connection.rollback()
                return lost
            planned = self._planned(batch, loaded)
            await self._write("bridge_postgres.commit", planned, connection)
        except BaseException:
            with suppress(psycopg.Error):
                await connection.rollback()
            raise
        return planned

    def _planned(self, batch: list[_Waiting], known: Loaded) -> Batch:
        planned = Batch(known)
        for waiting in batch:
            planned.add(waiting.ask, waiting.plan, self._store.now())
        return planned

    async def _begun(self, wanted: Wanted) -> tuple[Connection, Any]:
        """Lock and load, over a new connection when the old one turns out to be dead: nothing is written yet."""
        asked = {"wanted": rows.written(_wanted(wanted))}
        fresh = self._connection is None or self._connection.closed
        while True:
            if self._connection is None or self._connection.closed:
                self._connection = await self._store.connected()
            connection = self._connection
            try:
                cursor = await connection.execute(query("bridge_postgres.begin"), asked)
            except BaseException as error:
                with suppress(psycopg.Error):
                    await connection.rollback()
                if fresh or not isinstance(error, psycopg.OperationalError) or not connection.closed:
                    raise
                fresh = True
            else:
                cursor.nextset()
                return connection, cast("Any", await cursor.fetchone())["bridge_facts"]


async def _stands(lost: Batch, connection: Connection) -> bool:
    row = lost.proof()
    if row is None:
        raise unavailable(None)  # it may stand or not
    asked = {"chain": row["chain"], "link": row["link"]}
    found: Any = await (await connection.execute(query("bridge.audit_link"), asked)).fetchone()
    return found is not None and found["sha256"] == row["sha256"]


def _parts(batch: list[_Waiting], error: Exception) -> list[list[_Waiting]]:
    if isinstance(error, _TRANSIENT):
        by_thread: dict[str | None, list[_Waiting]] = {}
        for waiting in batch:
            by_thread.setdefault(waiting.ask.thread_id, []).append(waiting)
        return list(by_thread.values())
    if isinstance(error, psycopg.Error | OSError | _LostOnTheWay) and not isinstance(error, _OF_CONTENT):
        return [batch]
    return [[waiting] for waiting in batch]


def _wanted(wanted: Wanted) -> dict[str, object]:
    asked: dict[str, object] = {"threads": wanted.threads, "agents": list(wanted.agents)}
    if wanted.keys or wanted.findings or wanted.replies or wanted.sessions:
        asked["more"] = {
            "keys": list(wanted.keys),
            "findings": list(wanted.findings),
            "replies": list(wanted.replies),
            "sessions": list(wanted.sessions),
        }
    return asked


def _loaded(facts: list[dict[str, Any]]) -> Loaded:
    loaded, first = Loaded(), facts[0]
    for row in first["threads"] or ():
        loaded.threads[row["thread_id"]] = rows.thread(row)
        loaded.heads[row["thread_id"]] = Head(row["links"], row["head"])
        loaded.versions[row["thread_id"]] = row["version"]
    for row in first["members"] or ():
        loaded.members.setdefault(row["thread_id"], {})[row["agent_id"]] = rows.member(row)
    for row in first["rates"] or ():
        loaded.rates[row["workspace_id"], row["agent_id"]] = rows.rate(row)
    for more in facts[1:]:
        for row in more["keys"] or ():
            loaded.keys[row["thread_id"], row["sender"], row["idempotency_key"]] = rows.remembered(row)
        for row in more["findings"] or ():
            loaded.findings[row["thread_id"], row["finding_id"]] = rows.finding(row)
        loaded.replies.update(more["replies"] or ())
        for row in more["sessions"] or ():
            loaded.sessions[row["workspace_id"], row["agent_id"], row["session_id"]] = rows.session(row)
    return loaded


def _parameters(planned: Batch) -> dict[str, str | None]:
    lists = planned.rows().lists()
    first = {name: rows.written(lists.pop(name, [])) for name in ("threads", "posts", "audit", "rates")}
    return {**first, "rest": rows.written(lists) if lists else None}


def unavailable(error: Exception | None) -> Refused:
    """Say so without what the error tells of hosts and statements; it stays with it as the cause, for the log."""
    refused = Refused(Code.UNAVAILABLE, "the store can't be used now; try again", rule="store.unavailable", retry_after=1)
    refused.__cause__ = error
    return refused
