"""Waking over PostgreSQL: a few connections, each lent for one transaction.

A connection that turns out to be dead before anything was written is replaced by a new one, once; where it dies later, what
was asked may have been done or not, and the next look tells. Others' changes are heard on the channel on which the bridge
tells its news. A pooler keeps no session that listens: behind one, the audit is looked at every second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg.pq import TransactionStatus

from orchestration.bridge.chain import Head, workspace_chain
from orchestration.bridge.refusal import Refused
from orchestration.bridge.state import Ask
from orchestration.bridge.store import rows
from orchestration.bridge.store.batch import Batch, Loaded
from orchestration.bridge.store.lookups import Clock, unavailable, utc_now
from orchestration.bridge.store.postgres_writes import with_words
from orchestration.bridge.store.wake_steps import Known, Lost, Statement, Steps
from orchestration.bridge.store.wakes import WakeSteps
from orchestration.host import tasks
from orchestration.store.postgres import Connection, connected, migrate, query

_CONNECTIONS: Final = 4
_LOOK_SECONDS: Final = 1.0
_FIRST: Final = ("threads", "posts", "audit", "rates")
_Answer = TypeVar("_Answer")


class PostgresWakes(WakeSteps):
    """A `WakeStore` over PostgreSQL; belongs to the event loop that opened it. Make it with `opened`."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(clock)
        self._url = url
        self._free: list[Connection] = []
        self._lent = asyncio.Semaphore(_CONNECTIONS)
        self._heard = asyncio.Event()
        self._listening = False
        self._newest = -1
        self._listener: asyncio.Task[None] | None = None

    @classmethod
    async def opened(cls, url: str, *, clock: Clock = utc_now) -> PostgresWakes:
        """Migrate the database, and listen.

        Raises:
            StoreUnreachable: it can't be reached or migrated.
        """
        await migrate(url)
        store = cls(url, clock)
        store._listener = asyncio.ensure_future(store._listen())
        return store

    async def wait_for_work(self, *, seconds: float) -> bool:
        """Wait until anybody has told of a change since this was asked last."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            if not self._listening:
                with suppress(Refused):
                    await self._look()
            left = until - loop.time()
            if self._heard.is_set() or left <= 0:
                changed = self._heard.is_set()
                self._heard.clear()
                return changed
            with suppress(TimeoutError):
                async with asyncio.timeout(left if self._listening else min(left, _LOOK_SECONDS)):
                    await self._heard.wait()

    async def close(self) -> None:
        """Let go of every connection."""
        if self._listener is not None:
            await tasks.end([self._listener])
        for connection in self._free:
            await connection.close()
        self._free.clear()

    async def _done(self, steps: Callable[[], Steps[_Answer]], *, looking: bool = False) -> _Answer:
        news: dict[str, int] = {}
        begin = "wakes_postgres.begin_look" if looking else "wakes_postgres.begin"
        try:
            async with self._begun(begin) as connection:
                answer = await _carried_out(connection, steps(), news)
                await connection.execute(query("wakes_postgres.commit"))
                if news:
                    with suppress(psycopg.Error):  # a hint; what it is about is on disk
                        await connection.execute(query("bridge_postgres.notify"), {"news": rows.written(news)})
        except psycopg.errors.UniqueViolation as error:  # somebody was faster, where a unique index tells
            raise Lost from error
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, OSError) as error:
            raise unavailable(error) from error
        return answer

    @asynccontextmanager
    async def _begun(self, begin: str) -> AsyncIterator[Connection]:
        """Lend a connection with a transaction under way."""
        async with self._lent:
            while True:
                fresh = not self._free
                connection = await connected(self._url) if fresh else self._free.pop()
                try:
                    await connection.execute(query(begin))
                except BaseException as error:
                    await connection.close()
                    if fresh or not isinstance(error, psycopg.OperationalError):
                        raise
                else:
                    break
            try:
                yield connection
            except BaseException:
                with suppress(psycopg.Error):
                    await connection.rollback()
                raise
            finally:
                if connection.info.transaction_status == TransactionStatus.IDLE:
                    self._free.append(connection)
                else:
                    await connection.close()

    async def _listen(self) -> None:
        while True:
            with suppress(psycopg.Error, OSError):
                async with await connected(self._url) as connection:
                    cursor = await connection.execute(query("bridge_postgres.session"))
                    if cast("Any", await cursor.fetchone())["pid"] != connection.info.backend_pid:
                        return
                    await connection.execute(query("bridge_postgres.listen"))
                    self._listening = True
                    self._heard.set()  # what was told before nobody has heard
                    async for _ in connection.notifies():
                        self._heard.set()
            self._listening = False
            self._heard.set()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        """Tell by the audit whether anything has changed."""

        def newest() -> Steps[int]:
            (row,) = yield Statement("newest", {})
            return int(row["entry"])

        found = await self._done(newest, looking=True)
        if found != self._newest:
            self._newest = found
            self._heard.set()


async def _carried_out(connection: Connection, steps: Steps[_Answer], news: dict[str, int]) -> _Answer:
    found: Any = None
    while True:
        try:
            step = steps.send(found)
        except StopIteration as end:
            return cast("_Answer", end.value)
        if isinstance(step, Statement):
            name = step.query if "." in step.query else f"wakes_postgres.{step.query}"
            cursor = await connection.execute(query(name), dict(step.asked))
            found = await cursor.fetchall() if cursor.description else []
        elif isinstance(step, Known):
            found = await _known(connection, step.ask)
        else:
            await _write(connection, step.batch)
            news.update(step.batch.news)


async def _known(connection: Connection, ask: Ask) -> Loaded:
    """Lock a thread, or the chain of a workspace, and give what is known of it."""
    loaded = Loaded()
    wanted = {"threads": [] if ask.thread_id is None else [ask.thread_id], "agents": []}
    cursor = await connection.execute(query("wakes_postgres.lock"), {"wanted": rows.written(wanted)})
    for found in cast("Any", await cursor.fetchone())["facts"]:
        loaded.fill(**{kind: lines or () for kind, lines in found.items()})
    chains = loaded.chains_to_lock((ask,)) if ask.thread_id is None else []
    if chains:
        cursor = await connection.execute(query("bridge_postgres.heads"), {"workspaces": rows.written(chains)})
        for row in cast("Any", await cursor.fetchone())["bridge_heads"]:
            loaded.heads[workspace_chain(row["workspace_id"])] = Head(row["links"], row["head"])
    return loaded


async def _write(connection: Connection, batch: Batch) -> None:
    lists = batch.rows()
    lists["posts"] = with_words(lists.get("posts", []))
    first = {name: rows.written(lists.pop(name, [])) for name in _FIRST}
    asked = {**first, "rest": rows.written(lists) if lists else None}
    await connection.execute(query("bridge_postgres.write"), asked)
