"""A lane on one connection of PostgreSQL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from orchestration.bridge.store.batch import Batch
from orchestration.bridge.store.lane import Lane, LostOnTheWay, Write
from orchestration.bridge.store.lookups import Waiting, unavailable
from orchestration.bridge.store.postgres_line import Line, Results
from orchestration.bridge.store.postgres_locked import Locked
from orchestration.bridge.store.postgres_writes import counted, written_at_once

if TYPE_CHECKING:
    from orchestration.bridge.store.postgres import PostgresStore

TRANSIENT = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.QueryCanceled,
    psycopg.errors.SerializationFailure,
)
_OF_CONTENT = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)


class PostgresLane(Lane[bytes]):
    """A batch is one statement, which writes nothing where a thread has moved on since it was planned."""

    def __init__(self, store: PostgresStore) -> None:
        super().__init__(store.now, store.rates)
        self._store = store
        self.line = Line(store.connected)
        self._locked = Locked(self.line, store.now, store.rates)

    async def let_go(self) -> None:
        await self.line.close()

    @property
    def _is_open(self) -> bool:
        return self.line.is_open

    def _told(self, planned: Batch) -> bytes:
        return written_at_once(self.line, planned.rows())

    def _ask(self, write: Write[bytes]) -> None:
        try:
            self.line.ask(write.told, partial(self._heard, write))
        except psycopg.OperationalError as error:
            raise self._lost(write, error) from error

    def _send_ahead(self, following: Write[bytes]) -> None:
        """Keep it: libpq takes one at a time."""

    def _heard(self, write: Write[bytes], results: Results, error: psycopg.Error | None) -> None:
        self._answered(write, results, None if error is None else self._lost(write, error))

    def _lost(self, write: Write[bytes], error: psycopg.Error) -> Exception:
        """Tell a connection that died with a write under way from a write that failed."""
        gone = isinstance(error, psycopg.OperationalError) and not self.line.is_open
        return LostOnTheWay(write.planned, error) if gone else error

    @property
    def _waited(self) -> float:
        return self.line.waited

    async def _committed(self, batch: list[Waiting], failed: Exception | None) -> Batch:
        return await self._locked.committed(batch, failed)

    def _note(self, planned: Batch, answer: Any) -> None:
        self._store.committed(planned.news)
        if answer is not None:
            self._rates.learn(counted(answer))

    def _parts(self, batch: list[Waiting], error: Exception) -> list[list[Waiting]]:
        """Try the others without the one that can't be written, or without those whose thread is locked."""
        if isinstance(error, TRANSIENT):
            by_thread: dict[str | None, list[Waiting]] = {}
            for waiting in batch:
                by_thread.setdefault(waiting.ask.thread_id, []).append(waiting)
            return list(by_thread.values())
        if isinstance(error, psycopg.Error | OSError | LostOnTheWay) and not isinstance(error, _OF_CONTENT):
            return [batch]
        return [[waiting] for waiting in batch]

    def _as_refusal(self, error: Exception) -> Exception:
        if isinstance(error, TRANSIENT):
            return unavailable(error)
        if isinstance(error, psycopg.Error | OSError) and not isinstance(error, _OF_CONTENT):
            return self._store.lost(error)
        return error
