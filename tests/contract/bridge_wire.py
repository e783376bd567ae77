"""A socket before PostgreSQL's, on which writes can be kept waiting and lost, and answers as well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import cast

from tests.contract.postgres import Cluster


class Lost(Enum):
    """What of a write is lost, and its connection with it."""

    QUESTION = "before the server has it"
    ANSWER = "once the server has done it"


class Wire:
    """Carries what a store and the server tell each other."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.lose_next: Lost | None = None
        self.writes = 0
        """That have come so far, be they passed on or not."""
        self.carrying: list[asyncio.Task[None]] = []
        self._folder, self._server = folder, f"{cluster.folder}/.s.PGSQL.5432"
        self._passes: asyncio.Semaphore | None = None

    @asynccontextmanager
    async def laid(self, place: str) -> AsyncIterator[str]:
        """Give the address that goes over this wire."""
        async with await asyncio.start_unix_server(self._carry, str(self._folder / ".s.PGSQL.5432")):
            yield place.replace(place.partition("host=")[2].partition("&")[0], str(self._folder))
        await asyncio.gather(*self.carrying)

    def hold(self) -> None:
        """Keep writes waiting from now on."""
        self._passes = asyncio.Semaphore(0)

    def let_one_pass(self) -> None:
        """Pass on the write that waits, or the next one."""
        assert self._passes is not None
        self._passes.release()

    def let_pass(self) -> None:
        """Pass everything on from now on."""
        assert self._passes is not None
        self._passes.release()
        self._passes = None

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.carrying.append(cast("asyncio.Task[None]", asyncio.current_task()))
        from_server, to_server = await asyncio.open_unix_connection(self._server)
        losing = asyncio.Event()

        async def there() -> None:
            with suppress(ConnectionError):  # who leaves with an answer unread resets the connection
                while data := await reader.read(65536):
                    lost = await self._lost(data)
                    if lost is Lost.QUESTION:
                        break
                    if lost is Lost.ANSWER:
                        losing.set()
                    to_server.write(data)
            with suppress(ConnectionError):
                to_server.close()
                await to_server.wait_closed()

        going = asyncio.ensure_future(there())
        while data := await from_server.read(65536):
            if losing.is_set():
                break
            writer.write(data)
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()
            await going

    async def _lost(self, data: bytes) -> Lost | None:
        """Wait until it may pass, and tell what of it gets lost."""
        if b"bridge_write" not in data:
            return None
        self.writes += 1
        if self._passes is not None:
            await self._passes.acquire()
        lost, self.lose_next = self.lose_next, None
        return lost
