"""HTTP/1.1 by httptools, which is C: for servers that answer thousands of requests a second.

uvicorn writes an answer's head and body one after the other, and each is a system call of its own; here what is written in
one turn of the event loop goes out together.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from orchestration.serving import requests
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

    def write_at_once(self, data: bytes) -> None:
        """Write it now: nothing follows that could go out with it, and another turn takes 3 µs."""
        self._flush()
        self._transport.write(data)

    def close(self) -> None:
        """Close it once everything is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class _Whole:
    """See `requests.Whole`: what uvicorn does with the messages of ASGI, done at once."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def body(self) -> bytes | None:
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = cycle.body, bytearray()
        cycle.flow.resume_reading()
        return bytes(body)

    def answer(self, head: bytes, body: bytes) -> bool:
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused or not cycle.keep_alive:
            return False
        if cycle.scope["method"] == "HEAD":
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        lines = b"".join([b"%b: %b\r\n" % header for header in cycle.default_headers])  # the date
        cast("_Together", cycle.transport).write_at_once(b"HTTP/1.1 200 OK\r\n%b%b\r\n%b" % (lines, head, body))
        cycle.message_event.set()
        cycle.on_response()
        cast("dict[str, Any]", cycle.scope).pop(requests.WHOLE, None)  # a reference cycle, for garbage collection to find
        return True


class FastProtocol(Patience, HttpToolsProtocol):
    """As patient as the other."""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(_Together(transport, self.loop))

    def on_headers_complete(self) -> None:
        """Begin a request."""
        super().on_headers_complete()
        cast("dict[str, Any]", self.scope)[requests.WHOLE] = _Whole(self.cycle)
