"""Reads that share a query on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from orchestration.bridge.refusal import Refused
from orchestration.bridge.store import rows

_READ_TOGETHER = 16
Asked = tuple[str, str, int, int, bool]


class SharedReads:
    """Reads that wait for each other's queries to end share the next: what a query costs us is more than its messages."""

    def __init__(self, ask: Callable[..., Awaitable[list[Any]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Asked, asyncio.Future[Any]]] = []
        self._idle: list[asyncio.Future[None]] = []

    async def read(self, asked: Asked) -> Any:
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

    async def _carry_out(self, batch: list[tuple[Asked, asyncio.Future[Any]]]) -> None:
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
