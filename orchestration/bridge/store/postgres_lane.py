"""A lane: changes of some of the threads, on one connection of PostgreSQL, one transaction after the other."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import psycopg

from orchestration.bridge.chain import Head, workspace_chain
from orchestration.bridge.state import Ask
from orchestration.bridge.store import rows
from orchestration.bridge.store.batch import Batch, Loaded, Outcome, Wanted
from orchestration.bridge.store.lookups import Waiting, unavailable
from orchestration.bridge.store.recent import Recent
from orchestration.store.postgres import Connection, query

if TYPE_CHECKING:
    from orchestration.bridge.store.postgres import PostgresStore

TRANSIENT = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.QueryCanceled,
    psycopg.errors.SerializationFailure,
)
_MOST_TOGETHER = 512
_STALE = "KL001"
_OF_CONTENT = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)


class _LostOnTheWay(Exception):
    """The connection died with a commit under way."""

    def __init__(self, planned: Batch) -> None:
        super().__init__()
        self.planned = planned


class Lane:
    """Changes of some of the threads, one transaction after the other."""

    def __init__(self, store: PostgresStore) -> None:
        self.waiting: list[Waiting] = []
        self.commits = self.changes = 0
        self._store = store
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._connection: Connection | None = None
        self._recent = Recent()

    def take(self, waiting: Waiting) -> None:
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
        batch: list[Waiting] = []
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

    async def _carry_out(self, batch: list[Waiting]) -> None:
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
        if isinstance(error, TRANSIENT):
            return unavailable(error)
        if isinstance(error, psycopg.Error | OSError) and not isinstance(error, _OF_CONTENT):
            return self._store.lost(error)
        return error

    async def _committed(self, batch: list[Waiting]) -> Batch:
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

    async def _written_at_once(self, batch: list[Waiting], asks: list[Ask], known: Loaded) -> Batch | None:
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

    async def _written_under_lock(self, batch: list[Waiting], asks: list[Ask], lost: Batch | None = None) -> Batch:
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

    def _planned(self, batch: list[Waiting], known: Loaded) -> Batch:
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


def _parts(batch: list[Waiting], error: Exception) -> list[list[Waiting]]:
    if isinstance(error, TRANSIENT):
        by_thread: dict[str | None, list[Waiting]] = {}
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
    loaded = Loaded()
    for found in facts:
        loaded.replies.update(found.pop("replies", None) or ())
        loaded.fill(**{kind: lines or () for kind, lines in found.items()})
    return loaded


def _parameters(planned: Batch) -> dict[str, str | None]:
    lists = planned.rows().lists()
    first = {name: rows.written(lists.pop(name, [])) for name in ("threads", "posts", "audit", "rates")}
    return {**first, "rest": rows.written(lists) if lists else None}
