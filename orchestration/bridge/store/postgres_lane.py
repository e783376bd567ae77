"""A lane: changes of some of the threads, on one connection of PostgreSQL, one transaction after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from pydantic_core import from_json, to_json

from orchestration.bridge.chain import Head, workspace_chain
from orchestration.bridge.store.batch import Batch, Loaded, Outcome, Wanted
from orchestration.bridge.store.lookups import Waiting, unavailable
from orchestration.bridge.store.postgres_line import Line, Results
from orchestration.bridge.store.recent import Recent
from orchestration.bridge.store.rows import Row

if TYPE_CHECKING:
    from orchestration.bridge.store.postgres import PostgresStore

TRANSIENT = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.QueryCanceled,
    psycopg.errors.SerializationFailure,
)
_MOST_TOGETHER = 512
_ENOUGH_FOR_TWO = 8
"""So many changes are better committed in two halves that overlap than together: a third more of them with 32 clients."""
_STALE = "KL001"
_OF_A_POST = {"threads", "posts", "audit", "rates"}
"""The lists that most batches write, and a post alone."""
_PARTED, _NULL = "\0,", "\0\0"
_OF_CONTENT = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)


class _LostOnTheWay(Exception):
    """The connection died with a commit under way."""

    def __init__(self, planned: Batch, error: Exception) -> None:
        super().__init__()
        self.planned, self.error = planned, error


class _Ready(NamedTuple):
    """A batch that rests on what the one before leaves, and is to be written as soon as that one is."""

    batch: list[Waiting]
    planned: Batch
    statement: bytes


class Lane:
    """Changes of some of the threads, one transaction after the other.

    A batch that rests on what the last commit left is written from where it came in, and settled where the answer arrives:
    no task runs for it. Whatever else it takes, locks above all, is the work of a task.

    While PostgreSQL writes one batch, the next is planned on what that one is going to leave. Its write proves that it did;
    where it did not, the next is planned anew.
    """

    def __init__(self, store: PostgresStore) -> None:
        self.waiting: list[Waiting] = []
        self.commits = self.changes = 0
        self._store = store
        self.line = Line(store.connected)
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._together = 1
        """How many shared the last commit."""
        self._task: asyncio.Task[None] | None = None
        self._recent = Recent()
        self._next_up: _Ready | None = None
        self._foresees = False

    def take(self, waiting: Waiting) -> None:
        if self._closing:
            raise unavailable(None)
        self.waiting.append(waiting)
        if self._idle.is_set():
            self._idle.clear()
            self._next()
        else:
            self._foresee_soon()

    async def finish(self) -> None:
        """Take no more, and return when what was taken is done."""
        self._closing = True
        await self._idle.wait()

    async def let_go(self) -> None:
        await self.line.close()

    def _next(self) -> None:
        """Begin anew: at once where changes come one by one; else when what comes together has come in."""
        if self._together > 1:  # those that were just answered ask again at once
            self._loop.call_soon(self._loop.call_soon, self._begin_together)
        else:
            self._begin()

    def _begin_together(self) -> None:
        """Begin with all, or with half of many: from then on PostgreSQL writes one half while the other asks again."""
        many = len(self.waiting)
        self._begin(many // 2 if _ENOUGH_FOR_TWO <= many < _MOST_TOGETHER else _MOST_TOGETHER)

    def _begin(self, most: int = _MOST_TOGETHER) -> None:
        batch, self.waiting = self.waiting[:most], self.waiting[most:]
        self._together = len(batch)
        ready = self._made_ready(batch)
        if ready is None:
            self._task = self._loop.create_task(self._work(batch))
        else:
            self._write_at_once(ready)

    def _made_ready(self, batch: list[Waiting]) -> _Ready | None:
        """Plan a batch on what is known; None when that is not enough, or has been passed by."""
        asks = [waiting.ask for waiting in batch]
        known = self._recent.known(asks, self._store.rates) if self.line.is_open else None
        self._recent.forget(asks)
        planned = self._planned(batch, known) if known is not None else None
        if planned is None or not planned.validated(asks):
            return None
        try:
            return _Ready(batch, planned, self._writing_at_once(planned.rows().lists()))
        except psycopg.Error:
            return None

    def _write_at_once(self, ready: _Ready) -> None:
        """Write what was planned on what the last commit left: one round trip. The write proves what was known, or fails."""
        try:
            self.line.ask(ready.statement, partial(self._answered, ready.batch, ready.planned))
        except Exception as error:
            self._answered(ready.batch, ready.planned, [], error)
            return
        self._remember(ready.batch, ready.planned)
        self._store.rates.keep(ready.planned.known.rates)
        self._foresee_soon()

    def _foresee_soon(self) -> None:
        """Plan what waits, once what comes together has come in."""
        if self.waiting and self._next_up is None and not self._foresees and self._task is None:
            self._foresees = True
            self._loop.call_soon(self._loop.call_soon, self._foresee)

    def _foresee(self) -> None:
        self._foresees = False
        if not self.waiting or self._next_up is not None or self._task is not None or self._idle.is_set():
            return
        batch, self.waiting = self.waiting[:_MOST_TOGETHER], self.waiting[_MOST_TOGETHER:]
        self._next_up = self._made_ready(batch)
        if self._next_up is None:
            self.waiting = batch + self.waiting

    def _answered(self, batch: list[Waiting], planned: Batch, results: Results, error: Exception | None) -> None:
        ready, self._next_up = self._next_up, None
        if error is None:
            self._store.rates.learn(_counted(results))
            if ready is not None:
                self._together = len(ready.batch)
                self._write_at_once(ready)
                self._tell(batch, planned)
                return
            self._tell(batch, planned)
            if self.waiting:
                self._go_on()
            else:  # those who were told answer their clients first
                self._loop.call_soon(self._go_on)
            return
        self._recent.forget(waiting.ask for waiting in batch)
        if ready is not None:
            self._recent.forget(waiting.ask for waiting in ready.batch)
            self.waiting = ready.batch + self.waiting
        if isinstance(error, psycopg.OperationalError) and not self.line.is_open:
            error = _LostOnTheWay(planned, error)
        self._task = self._loop.create_task(self._work(batch, error))

    def _tell(self, batch: list[Waiting], planned: Batch) -> None:
        self.commits += 1
        self.changes += len(batch)
        self._store.committed(planned.news)
        _answer(batch, planned.outcomes)

    def _remember(self, batch: list[Waiting], planned: Batch) -> None:
        self._recent.remember(planned.known, [waiting.ask for waiting in batch])

    def _go_on(self) -> None:
        if self.waiting:
            self._begin()
        else:
            self._idle.set()

    async def _work(self, batch: list[Waiting], failed: Exception | None = None) -> None:
        await self._carry_out(batch, failed)
        self._task = None
        self._go_on()

    async def _carry_out(self, batch: list[Waiting], failed: Exception | None = None) -> None:
        """Commit a batch; when one of it can't be written, or one thread is locked, the others are tried without it.

        Args:
            failed: what became of writing it at once.
        """
        try:
            planned = await self._committed(batch, failed)
        except Exception as error:
            parts = _parts(batch, error)
            if len(parts) > 1:
                for part in parts:
                    await self._carry_out(part)
                return
            if isinstance(error, _LostOnTheWay):
                error = error.error
            _answer(batch, [Outcome(None, self._as_refusal(error))] * len(batch))
        else:
            self._tell(batch, planned)
            self._remember(batch, planned)

    def _as_refusal(self, error: Exception) -> Exception:
        if isinstance(error, TRANSIENT):
            return unavailable(error)
        if isinstance(error, psycopg.Error | OSError) and not isinstance(error, _OF_CONTENT):
            return self._store.lost(error)
        return error

    async def _committed(self, batch: list[Waiting], failed: Exception | None) -> Batch:
        if isinstance(failed, _LostOnTheWay):
            return await self._written_under_lock(batch, failed.planned)
        if failed is not None and not _is_outdated(failed):
            raise failed
        try:
            return await self._written_under_lock(batch)
        except _LostOnTheWay as error:
            return await self._written_under_lock(batch, error.planned)

    async def _written_under_lock(self, batch: list[Waiting], lost: Batch | None = None) -> Batch:
        """Lock, load, plan and write: two round trips, on facts that nobody else can change meanwhile.

        `lost` was written just before its connection died. Under the lock it shows whether it was committed; if it was
        not, it never will be, for the version that it was planned on is passed.
        """
        asks = [waiting.ask for waiting in batch]
        try:
            loaded = _loaded(await self._begun(Wanted(asks)))
            chains = loaded.chains_to_lock(asks)
            if chains:
                for row in await self._told("bridge_postgres.heads", workspaces=to_json(chains)):
                    loaded.heads[workspace_chain(row["workspace_id"])] = Head(row["links"], row["head"])
            if lost is not None and await self._stands(lost):
                return lost
            planned = self._planned(batch, loaded)
            try:
                results = await self.line.asked(self._writing("bridge_postgres.commit", planned.rows().lists()))
            except psycopg.OperationalError as error:
                raise error if self.line.is_open else _LostOnTheWay(planned, error) from error
            self._store.rates.learn(_counted(results))
            return planned
        finally:
            await self.line.roll_back()

    def _planned(self, batch: list[Waiting], known: Loaded) -> Batch:
        planned, now = Batch(known), self._store.now()
        for waiting in batch:
            planned.add(waiting.ask, waiting.plan, now)
        return planned

    async def _begun(self, wanted: Wanted) -> list[dict[str, Any]]:
        """Lock and load, over a new connection when the old one turns out to be dead: nothing is written yet."""
        was_open = self.line.is_open
        asked = to_json(_wanted(wanted))
        try:
            return await self._facts(asked)
        except psycopg.OperationalError:
            if self.line.is_open or not was_open:
                raise
        return await self._facts(asked)

    async def _facts(self, wanted: bytes) -> list[dict[str, Any]]:
        await self.line.open()
        results = await self.line.asked(self.line.statement("bridge_postgres.begin", wanted=wanted))
        facts: list[dict[str, Any]] = from_json(results[-1].get_value(0, 0) or b"")
        return facts

    async def _told(self, name: str, **values: bytes) -> Any:
        """Return the JSON that a named query gives; None when it gives no row."""
        (result,) = await self.line.asked(self.line.statement(name, **values))
        return from_json(result.get_value(0, 0) or b"null") if result.ntuples else None

    async def _stands(self, lost: Batch) -> bool:
        row = lost.proof()
        if row is None:
            raise unavailable(None)  # it may stand or not
        chain, link = str(row["chain"]).encode(), str(row["link"]).encode()
        (result,) = await self.line.asked(self.line.statement("bridge.audit_link", chain=chain, link=link))
        return bool(result.ntuples) and result.get_value(0, 0) == str(row["sha256"]).encode()

    def _writing_at_once(self, lists: dict[str, list[Row]]) -> bytes:
        if lists.keys() != _OF_A_POST or any(len(lines) > 1 for lines in lists.values()):
            return self._writing("bridge_postgres.write", lists)
        note: Row = {"entry": None, **lists["audit"][0]}
        return self.line.statement(
            "bridge_postgres.write_post",
            threads=_record(lists["threads"][0]),
            posts=_record(lists["posts"][0]),
            audit=_record(note),
            rates=_record(lists["rates"][0]),
        )

    def _writing(self, name: str, lists: dict[str, list[Row]]) -> bytes:
        first = {of: to_json(lists.pop(of, [])) for of in _OF_A_POST}
        return self.line.statement(name, **first, rest=to_json(lists) if lists else None)


def _record(row: Row) -> bytes:
    """Write a row as PostgreSQL reads one, its values in the order of the table's columns.

    All are quoted at once. What parts them meanwhile, and what stands for NULL, is in no text, for none has a NUL.
    """
    text = _PARTED.join([_NULL if value is None else str(value) for value in row.values()])
    quoted = text.replace("\\", "\\\\").replace('"', '""').replace(_PARTED, '","')
    return f'("{quoted}")'.replace(f'"{_NULL}"', "").encode()


def _answer(batch: list[Waiting], outcomes: Iterable[Outcome[Any]]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if not waiting.future.done():  # who asked may have gone
            waiting.future.set_result(outcome)


def _counted(results: Results) -> Any:
    return from_json(results[0].get_value(0, 0) or b"[]")


def _is_outdated(error: Exception) -> bool:
    """Tell whether a write has shown that more was not known than thought: another process was faster, or it is a repeat."""
    return isinstance(error, psycopg.errors.UniqueViolation) or (
        isinstance(error, psycopg.Error) and error.sqlstate == _STALE
    )


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
