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
_HEAD: Final = b"".join(
    [
        b"content-type: %b\r\n" % JSON,
        *(b"%b: %b\r\n" % (name, value) for name, value in _HEADERS),
        b"content-length: %d\r\nx-request-id: %b\r\n",
    ]
)
"""Of an answer in JSON that says nothing else of itself, as it goes over the wire."""


class Exchange:
    """One request and what has been answered so far."""

    operation = "none"
    """A method of the table, or another name of ours: it becomes a label."""
    status = 0
    answered = 0
    """Bytes."""
    code = ""
    rule = ""
    caller: Caller | None = None
    thread_id: str | None = None
    waits = False
    """The answer waits for something to happen, so that its time says nothing of ours."""
    streams = False

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers = requests.headers(scope)
        self.request_id = requests.request_id(self.headers.get(b"x-request-id", b""))
        self.receive = receive
        self._send = send

    async def left(self) -> None:
        """Return when who asked has gone; to be waited for once the body is read."""
        while (await self.receive())["type"] != "http.disconnect":
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
        if status == 200 and not headers and media_type is JSON and self._answered_at_once(body):
            return
        length = (b"content-length", b"%d" % len(body))
        first = [(b"content-type", media_type), length, *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": first})
        await self.send({"type": "http.response.body", "body": body})

    def _answered_at_once(self, body: bytes) -> bool:
        """Have the server send what most answers are: JSON, and nothing that others do not say as well."""
        server: requests.Whole | None = self.scope.get(requests.WHOLE)
        if server is None or not server.answer(_HEAD % (len(body), self.request_id.encode()), body):
            return False
        self.status, self.answered = 200, len(body)
        return True


def _missing(given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    names = {name for name, _ in given}
    return [(name, value) for name, value in _HEADERS if name not in names]


def of(scope: Scope) -> Exchange:
    """Return the exchange that a request belongs to."""
    found = scope["kloros.exchange"]
    assert isinstance(found, Exchange)
    return found
