"""HTTP/1.1 by httptools, which is C: for servers that answer thousands of requests a second.

uvicorn writes an answer's head and body one after the other, and each is a system call of its own; here what is written in
one turn of the event loop goes out together.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestration.serving.process import Patience


class _Together:
    """A transport that writes once in a turn of the event loop; for the rest it is the one that it was given."""

    __slots__ = ("_loop", "_parts", "_transport")

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write it at the end of this turn."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Close it once everything is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class FastProtocol(Patience, HttpToolsProtocol):
    """As patient as the other."""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(_Together(transport, self.loop))
