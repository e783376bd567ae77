"""Who waits for which thread. What is announced is a hint; the adapters look at the watched threads now and then as well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class News:
    """Waiters by thread; belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[asyncio.Future[bool], int]] = {}
        self._anybody = asyncio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def announce(self, last_seqs: dict[str, int]) -> None:
        """Wake those who wait for a message at or before a thread's last."""
        for thread_id, last_seq in last_seqs.items():
            for future, since in self._waiting.get(thread_id, {}).items():
                if since < last_seq and not future.done():
                    future.set_result(True)

    def watched(self) -> list[str]:
        """Return the threads that somebody waits for."""
        return list(self._waiting)

    async def somebody_waits(self) -> None:
        """Return once there is a waiter."""
        await self._anybody.wait()

    async def wait(self, thread_id: str, since: int, seconds: float, look: Callable[[], Awaitable[int]]) -> bool:
        """Return True when the thread goes past `since`; `look` reads where it is, once the waiter is on the list."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(thread_id, {})[future] = since
        self._anybody.set()
        try:
            if await look() > since:
                return True
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return False
        finally:
            waiting = self._waiting[thread_id]
            del waiting[future]
            if not waiting:
                del self._waiting[thread_id]
            if not self._waiting:
                self._anybody.clear()
