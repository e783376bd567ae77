"""`GET /v1/threads/<id>/events`: a thread's messages as server-sent events, from a place on, without end.

Theory. An event's id is its message's `seq`, and a stream is nothing but reads that follow `next_seq`: so it misses as
little as a reader does, and who comes again with `Last-Event-ID` goes on exactly there. A reader that is slow keeps its own
stream waiting, never more than one read of some size in memory; one that takes nothing at all is cut off by the protocol's
patience. Each round looks at the token anew, and a revocation ends the wait: a stream ends with its token.

    id: 12
    event: message
    data: {"message_id": …}          the wire's Message, in one line

A comment comes every `_HEARTBEAT` seconds: proxies close what is silent. https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from orchestration.bridge.auth.claims import Rejected, Rule
from orchestration.bridge.http import exchange
from orchestration.bridge.http.body import invalid
from orchestration.bridge.http.commanding import admitted
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.wire import LARGEST_SEQ, Message, ReadMessages
from orchestration.serving import requests

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from orchestration.bridge.auth.tokens import Verifier
    from orchestration.bridge.caller import Caller
    from orchestration.bridge.http.exchange import Exchange
    from orchestration.bridge.http.measures import Measures
    from orchestration.bridge.wire import MessagesRead

MOST_STREAMS: Final = 512
_HEARTBEAT: Final = 15.0
_AT_ONCE: Final = 50
_BYTES_AT_ONCE: Final = 128 * 1024
"""A read is to be no larger than this; messages may be, each by itself."""
_MESSAGE: Final = TypeAdapter(Message)
_HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


class Streaming:
    """Every open stream of this process, as one ASGI application."""

    def __init__(
        self,
        read: Callable[[Caller, ReadMessages], Awaitable[MessagesRead]],
        verifier: Verifier,
        measures: Measures,
        *,
        note: Callable[[Caller, str, Refused], Awaitable[None]],
        heartbeat: float = _HEARTBEAT,
    ) -> None:
        """Take the command that reads, and what has a refusal noted; `heartbeat` is in seconds."""
        self._read = read
        self._note = note
        self._verifier = verifier
        self._measures = measures
        self._heartbeat = heartbeat
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End every stream; its readers come again when somebody listens again, and miss nothing."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, for as long as its reader stays."""
        here = exchange.of(scope)
        here.operation = "thread_events"
        here.waits = True
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        caller = await admitted(here, self._verifier)
        authorization = requests.header(scope, b"authorization")
        asked = await self._asked(scope, caller)
        here.thread_id = asked.thread_id
        if self._measures.streams >= MOST_STREAMS:
            told = f"{MOST_STREAMS} event streams are open already, as many as may"
            raise Refused(Code.UNAVAILABLE, told, rule="http.streams", retry_after=30)
        # As large as messages may be, until we know how large they are: the first read must not be the largest.
        ahead = [await self._read(caller, asked.model_copy(update={"limit": 2, "wait_seconds": 0.0}))]
        self._measures.streams += 1
        here.streams = True
        left = asyncio.ensure_future(here.left())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await here.send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await here.send({"type": "http.response.body", "body": b"retry: 2000\n\n", "more_body": True})
            if scope["method"] == "GET":
                with self._verifier.held(caller.token_id) as revoked:
                    await self._go_on(here, caller, authorization, asked, ahead, (left, stopping, revoked))
                    if revoked.done():
                        here.rule = Rule.REVOKED
            await here.send({"type": "http.response.body", "body": b""})
        finally:
            self._measures.streams -= 1
            left.cancel()
            stopping.cancel()

    async def _asked(self, scope: Scope, caller: Caller) -> ReadMessages:
        try:
            return ReadMessages(thread_id=scope["path_params"]["thread_id"], since_seq=_since(scope), limit=_AT_ONCE)
        except (ValidationError, Refused) as error:
            refused = invalid(error) if isinstance(error, ValidationError) else error
            await self._note(caller, "read_messages", refused)
            raise refused from None

    async def _go_on(
        self,
        here: Exchange,
        caller: Caller,
        authorization: bytes,
        asked: ReadMessages,
        ahead: list[MessagesRead],
        ends: tuple[asyncio.Future[Any], ...],
    ) -> None:
        found = ahead.pop()  # which a stream must not hold for as long as it is open
        while True:
            largest = await self._give(here, found, ends)
            if any(end.done() for end in ends):
                return
            limit = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // largest)) if largest else asked.limit
            wait = 0.0 if found.has_more else self._heartbeat
            asked = asked.model_copy(update={"since_seq": found.next_seq, "limit": limit, "wait_seconds": wait})
            try:
                reading = asyncio.ensure_future(self._read(caller, asked))
                await asyncio.wait((reading, *ends), return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    return
                found = reading.result()
                await self._verifier.verify(authorization)  # before anything of it goes out
            except (Rejected, Refused) as error:
                here.rule = error.rule  # the stream ends; who comes again is told why
                return

    async def _give(self, here: Exchange, found: MessagesRead, ends: tuple[asyncio.Future[Any], ...]) -> int:
        """Send the messages of one read; returns the size of the largest."""
        if not found.messages:
            await here.send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
            return 0
        largest = 0
        for message in found.messages:
            data = _MESSAGE.dump_json(message)
            largest = max(largest, len(data))
            await here.send({"type": "http.response.body", "body": _event(message.seq, data), "more_body": True})
            if any(end.done() for end in ends):
                break
            self._measures.sent(1)
        return largest


def _event(seq: int, data: bytes) -> bytes:
    return b"id: %d\nevent: message\ndata: %b\n\n" % (seq, data)


def _since(scope: Scope) -> int:
    """Return from where on: what the reader has last, else what the query says."""
    last = requests.header(scope, b"last-event-id")
    query = parse_qs(scope["query_string"].decode("latin-1"))
    given = last.decode("latin-1") if last else query.get("since_seq", ["0"])[0]
    if not (given.isascii() and given.isdecimal() and len(given) <= 19 and int(given) <= LARGEST_SEQ):
        name = "Last-Event-ID" if last else "since_seq"
        told = f"{name} must be the number of a message, or 0"
        raise Refused(Code.INVALID_ARGUMENT, told, rule="http.fields", details={name: "a whole number"})
    return int(given)
