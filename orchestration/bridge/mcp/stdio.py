"""MCP over standard input and output, for a client that starts its servers itself: one client, until it closes its end.

The commands work on the store of this host, beside a bridge that may run or not. Who asks is either an agent, by a token
that is looked at anew with each call, or the operator.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
from anyio import EndOfStream
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from pydantic import BaseModel, ValidationError

from orchestration.bridge.caller import Caller
from orchestration.bridge.http import body, errors
from orchestration.bridge.http.commanding import best, traceparent
from orchestration.bridge.mcp.server import server
from orchestration.bridge.mcp.tools import result
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.wire import ReadMessages
from orchestration.host.journal import Event, Priority, log

if TYPE_CHECKING:
    from types import TracebackType

    from mcp.server.context import ServerRequestContext
    from mcp.shared._stream_protocols import ReadStream, WriteStream

    from orchestration.bridge.mcp.tools import Tool
    from orchestration.bridge.methods import Method

Identify = Callable[[str, str], Awaitable[Caller]]
"""Returns who asks, for a request id and a trace context. Raises: Rejected, KlorosError."""
_DEFECT: Final = "a defect of ours; the request id leads to it in our log"
_LOOK: Final = 1.0  # seconds after which who waits is identified anew


async def serve(commands: Any, methods: Sequence[Method], identify: Identify) -> None:
    """Serve until the client has closed its end.

    Args:
        commands: an object with one coroutine function per method, and `refuse` for what no method takes, which audits it.
        identify: asked at each call.
    """

    def door_of(_ctx: ServerRequestContext[Any, Any]) -> _Door:
        return _Door(commands, identify, secrets.token_hex(8))

    serves = server(methods, door_of)
    async with stdio_server() as (reads, writes):
        await serves.run(_Messages(reads, writes), writes, serves.create_initialization_options())


class _Messages:
    """What the client sends, but for lines that are no message: those are answered at once, for the SDK drops them."""

    def __init__(self, reads: ReadStream[SessionMessage | Exception], writes: WriteStream[SessionMessage]) -> None:
        self._reads, self._writes = reads, writes

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message."""
        while isinstance(item := await self._reads.receive(), Exception):
            error = _no_message(item)
            told = f"mcp {Code.INVALID_ARGUMENT}: {error.message}"
            log(Event.REQUEST_REFUSED, told, code=Code.INVALID_ARGUMENT, rule=f"mcp.protocol.{error.code}")
            await self._writes.send(SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=None, error=error)))
        return item

    async def aclose(self) -> None:
        """Close the client's stream."""
        await self._reads.aclose()

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> _Messages:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


def _no_message(error: Exception) -> types.ErrorData:
    """Say why a line is no message, in the words of `/mcp`."""
    if isinstance(error, ValidationError) and all(one["type"] != "json_invalid" for one in error.errors()):
        return types.ErrorData(code=types.INVALID_REQUEST, message="a line must be one JSON-RPC message")
    return types.ErrorData(code=types.PARSE_ERROR, message="Parse error")


@dataclass(slots=True)
class _Door:
    """A call that came by standard input."""

    commands: Any
    identify: Identify
    request_id: str
    tool: str = ""
    began: float = 0.0
    caller: Caller | None = None

    async def carry_out(self, tool: Tool, raw: bytes, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        self.tool, self.began = tool.name, time.monotonic()
        self.caller = await self.identify(self.request_id, traceparent(meta.get("traceparent")))
        try:
            asked = tool.asked(raw)
        except ValidationError as error:
            refused = body.invalid(error)
            await self.commands.refuse(self.caller, tool.name, refused)
            raise refused from None
        answer = tool.answered(await self._answered(tool, self.caller, asked))
        self._tell(Event.REQUEST_ANSWERED, "answered", Priority.INFO)
        return result(answer)

    async def _answered(self, tool: Tool, caller: Caller, asked: BaseModel) -> BaseModel | bytes:
        answer: Awaitable[BaseModel | bytes] = best(self.commands, tool.name)(caller, asked)
        if not isinstance(asked, ReadMessages) or not asked.wait_seconds:
            return await answer
        reading = asyncio.ensure_future(answer)
        try:
            done: set[Any] = set()
            while not done:
                done, _ = await asyncio.wait((reading,), timeout=_LOOK)
                await self.identify(self.request_id, caller.traceparent)  # the token may have been revoked meanwhile
            return reading.result()
        finally:
            reading.cancel()

    def refusal(self, error: Exception) -> Refused:
        """Say what an error means."""
        found = errors.refusal(error)
        if found is None:
            defect = "".join(traceback.format_exception(error))
            log(Event.BRIDGE_FAILED, defect, priority=Priority.ERROR, request_id=self.request_id)
            found = Refused(Code.INTERNAL, _DEFECT, rule="defect")
        self._tell(Event.REQUEST_REFUSED, f"{found.code}: {found.rule}", Priority.INFO, code=found.code, rule=found.rule)
        return found

    def _tell(self, event: Event, what: str, priority: Priority, **more: object) -> None:
        caller = self.caller
        log(
            event,
            f"mcp {self.tool} {what}",
            priority=priority,
            operation=f"mcp.{self.tool}",
            seconds=round(time.monotonic() - self.began, 6),
            request_id=self.request_id,
            agent_id=caller.agent_id if caller else None,
            workspace_id=caller.workspace_id if caller else None,
            token_id=caller.token_id or None if caller else None,
            **more,
        )
