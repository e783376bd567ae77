"""One request on its way through: its id, who turned out to ask, what was answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestration.bridge.caller import Caller
from orchestration.serving import requests

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

JSON: Final = b"application/json"
_HEADERS: Final = tuple((name.encode(), value.encode()) for name, value in requests.HEADERS.items())
_NAMES: Final = frozenset(name for name, _ in _HEADERS)


class Exchange:
    """One request and what has been answered so far."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self.request_id = requests.request_id(scope)
        self.operation = "none"
        """A method of the table, or another name of ours: it becomes a label."""
        self.status = 0
        self.answered = 0
        """Bytes."""
        self.code = ""
        self.rule = ""
        self.caller: Caller | None = None
        self.thread_id: str | None = None
        self.waits = False
        """The answer waits for something to happen, so that its time says nothing of ours."""
        self.streams = False
        self._send = send

    async def left(self) -> None:
        """Return when who asked has gone; to be waited for once the body is read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def send(self, message: Message) -> None:
        """Send one part of the answer, the first with the headers that all have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message["headers"]
            own = _HEADERS if not _NAMES & {name for name, _ in given} else _missing(given)
            message["headers"] = [*given, *own, (b"x-request-id", self.request_id.encode())]
        else:
            self.answered += len(message.get("body", b""))
        await self._send(message)

    async def answer(self, status: int, body: bytes, *headers: tuple[bytes, bytes], media_type: bytes = JSON) -> None:
        """Answer at once and whole."""
        length = (b"content-length", b"%d" % len(body))
        first = [(b"content-type", media_type), length, *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": first})
        await self.send({"type": "http.response.body", "body": body})


def _missing(given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    names = {name for name, _ in given}
    return [(name, value) for name, value in _HEADERS if name not in names]


def of(scope: Scope) -> Exchange:
    """Return the exchange that a request belongs to."""
    found = scope["kloros.exchange"]
    assert isinstance(found, Exchange)
    return found
