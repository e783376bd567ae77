"""Reads that share a query on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

import psycopg
from pydantic_core import from_json, to_json

from orchestration.bridge.refusal import Refused
from orchestration.bridge.state import Member, ReadingText, ThreadRow
from orchestration.bridge.store import rows
from orchestration.bridge.store.postgres_line import Line, Results

_READ_TOGETHER: Final = 16
_COLUMNS: Final = ("place", "messages", "last")


class Asked(NamedTuple):
    """One read; in the order of bridge_read's parameters."""

    thread_id: str
    reader: str
    since_seq: int
    limit: int
    sees_all: bool


class _Waiting(NamedTuple):
    asked: Asked
    future: asyncio.Future[ReadingText]


class SharedReads:
    """Reads that wait for each other's queries to end share the next: what a query costs us is more than its messages.

    They go over a few lines. What a line can't answer, or not yet, `ask` reads over the pool, which knows what to do.
    """

    def __init__(self, lines: list[Line], ask: Callable[..., Awaitable[list[Any]]]) -> None:
        self._lines = lines
        self._idle = list(lines)
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._all_idle = asyncio.Event()
        self._all_idle.set()
        self._tasks = set[asyncio.Task[None]]()

    async def read(self, asked: Asked) -> ReadingText:
        """Carry out one read."""
        future: asyncio.Future[ReadingText] = self._loop.create_future()
        self._waiting.append(_Waiting(asked, future))
        if self._idle:
            self._all_idle.clear()
            self._loop.call_soon(self._begin, self._idle.pop())
        return await future

    async def close(self) -> None:
        """Answer what waits, and let go of the lines."""
        await self._all_idle.wait()
        for line in self._lines:
            await line.close()

    def _begin(self, line: Line) -> None:
        batch, self._waiting = self._waiting[:_READ_TOGETHER], self._waiting[_READ_TOGETHER:]
        batch = [one for one in batch if not one.future.done()]  # who asked may have gone
        if not batch:
            self._go_on(line)
            return
        try:
            statement = line.statement("bridge_postgres.read_text", asked=to_json([one.asked for one in batch]))
            line.ask(statement, partial(self._answered, line, batch))
        except Exception as error:  # it has no connection, above all
            self._answered(line, batch, [], error)

    def _answered(self, line: Line, batch: list[_Waiting], results: Results, error: Exception | None) -> None:
        if error is not None:
            task = self._loop.create_task(self._read_over_pool(line, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        value = results[0].get_value
        for at, one in enumerate(batch):
            if not one.future.done():
                one.future.set_result(_reading(one.asked, value(at, 0), value(at, 1), value(at, 2)))
        self._go_on(line)

    def _go_on(self, line: Line) -> None:
        if self._waiting:
            self._loop.call_soon(self._begin, line)
            return
        self._idle.append(line)
        if len(self._idle) == len(self._lines):
            self._all_idle.set()

    async def _read_over_pool(self, line: Line, batch: list[_Waiting]) -> None:
        if await self._carry_out(batch):
            with suppress(psycopg.Error, OSError):
                await line.open()
        self._go_on(line)

    async def _carry_out(self, batch: list[_Waiting]) -> bool:
        try:
            found = await self._ask(asked=rows.written([one.asked for one in batch]))
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, Refused):
                for one in batch:  # one of them can't be read: each for itself then
                    await self._carry_out([one])
                return False
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return False
        for one, row in zip(batch, found, strict=True):
            if not one.future.done():
                one.future.set_result(_reading(one.asked, *(row[name] and row[name].encode() for name in _COLUMNS)))
        return True


def _reading(asked: Asked, place: bytes | None, messages: bytes | None, last: bytes | None) -> ReadingText:
    thread, member = _place(place) if place else (None, None)
    return ReadingText(
        thread=thread,
        member=member,
        messages=messages or b"[]",
        next_seq=int(last) if last else asked.since_seq,
    )


@lru_cache(maxsize=256)
def _place(text: bytes) -> tuple[ThreadRow, Member | None]:
    thread, member = from_json(text)
    return rows.thread(thread), None if member is None else rows.member(member)
