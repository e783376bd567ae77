"""`POST /mcp`: MCP's streamable HTTP, one request and one answer in JSON at a time.

Theory. The server has nothing to say that nobody asked for, so it keeps no session and opens no stream: each POST stands
for itself, whatever process answers it. So it does for both kinds of protocol there are: the older revisions, in which a
client shakes hands first, and the newer, in which each request says all of it. The SDK's own transport starts tasks and
streams for each request, which costs more than all the rest (docs/decisions/0025); what a message means is still the SDK's
(`ServerRunner`; its `serve_one` also unwinds what was left to do for a connection, which with us is never anything).
https://modelcontextprotocol.io/specification/2025-11-25/basic/transports
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio
import mcp_types as types
from mcp.server.connection import Connection
from mcp.server.runner import ServerRunner
from mcp.shared import inbound
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.jsonrpc_dispatcher import handler_exception_to_error_data
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import ValidationError
from pydantic_core import from_json, to_json
from starlette.exceptions import HTTPException

from orchestration.bridge.http import body
from orchestration.bridge.http.commanding import admitted, traceparent
from orchestration.bridge.mcp.server import server
from orchestration.bridge.mcp.tools import result
from orchestration.bridge.refusal import Code, Refused

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from mcp.shared.dispatcher import CallOptions
    from starlette.types import Scope

    from orchestration.bridge.auth.tokens import Verifier
    from orchestration.bridge.caller import Caller
    from orchestration.bridge.http.exchange import Exchange
    from orchestration.bridge.mcp.tools import Tool
    from orchestration.bridge.methods import Method

_TRANSPORT: Final = TransportContext(kind="streamable-http", can_send_request=False)
_VERSION: Final = inbound.MCP_PROTOCOL_VERSION_HEADER.encode()
_ACCEPTED: Final = (b"application/json", b"application/*", b"*/*")
CarryOut = Callable[["Exchange", str, bytes], Awaitable[bytes]]
"""Has a method carried out for the exchange's caller, from JSON to JSON."""


class Names(Protocol):
    """What this server is called: a page of another site must not get in under a name that was made to lead here."""

    def knows(self, host: str) -> bool:
        """Tell whether it may be asked under this `Host`."""

    def is_own_name(self, host: str) -> bool:
        """Tell whether a host, with or without a port, is this one."""


class McpFace:
    """The bridge's tools."""

    def __init__(
        self,
        methods: Sequence[Method],
        verifier: Verifier,
        *,
        read: Callable[[Exchange, Caller], Awaitable[bytes]],
        carry_out: CarryOut,
        refusal: Callable[[Exception, Exchange], Refused],
        names: Names | None,
    ) -> None:
        """Take the table of methods, and ways to serve them.

        Args:
            read: gets the body of a request.
            refusal: says what an error means, and tells log and metrics.
            names: under which it may be asked; None for any, though by no page.
        """
        self._verifier = verifier
        self._read = read
        self._carry_out = carry_out
        self._refusal = refusal
        self._names = names
        self._server = server(methods, _door_of)

    async def answer(self, here: Exchange) -> None:
        """Answer one request."""
        here.operation = "mcp"
        if here.scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        self._check(here.headers)
        message = _message(await self._read(here, await admitted(here, self._verifier)))
        if isinstance(message, types.JSONRPCRequest):
            answer, status = await self._answered(here, message)
            await here.answer(status, answer)
        elif isinstance(message, types.JSONRPCNotification):
            await here.answer(202, b"")
        else:
            await self._say(here, None, message)

    def _check(self, headers: Mapping[bytes, bytes]) -> None:
        names = self._names
        if names is not None and not names.knows(headers.get(b"host", b"").decode("latin-1")):
            told = "this server does not go by the name it was asked under; [pulse] hosts adds names"
            raise Refused(Code.FORBIDDEN, told, rule="mcp.host")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and not (names is not None and names.is_own_name(origin.rpartition("//")[2])):
            raise Refused(Code.FORBIDDEN, "a page of another site may not ask here", rule="mcp.origin")
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
            raise Refused(Code.INVALID_ARGUMENT, "the Content-Type must be application/json", rule="mcp.content_type")
        accepted = headers.get(b"accept", b"").lower()
        if accepted and not any(one.partition(b";")[0].strip() in _ACCEPTED for one in accepted.split(b",")):
            raise Refused(Code.INVALID_ARGUMENT, "the answer is application/json: accept it", rule="mcp.accept")

    async def _answered(self, here: Exchange, request: types.JSONRPCRequest) -> tuple[bytes, int]:
        version = here.headers.get(_VERSION, b"").decode("latin-1") or types.DEFAULT_NEGOTIATED_VERSION
        by_itself = version not in HANDSHAKE_PROTOCOL_VERSIONS
        if by_itself:
            route = _route(here.scope, request)
            if isinstance(route, types.ErrorData):
                return self._failed(here, request.id, route, by_itself=True)
            connection = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
        else:
            connection = Connection.from_envelope(version, None, None)
        door = _Door(here, self._carry_out, self._refusal)
        context = _Context(request.id, ServerMessageMetadata(request_context=door))
        try:
            answer = await ServerRunner(self._server, connection, {}).on_request(context, request.method, request.params)
        except Exception as error:
            data = handler_exception_to_error_data(error)
            if data is None:
                raise
            return self._failed(here, request.id, data, by_itself=by_itself)
        return door.with_data(to_json({"jsonrpc": "2.0", "id": request.id, "result": answer})), 200

    def _failed(
        self, here: Exchange, request_id: types.RequestId | None, error: types.ErrorData, *, by_itself: bool
    ) -> tuple[bytes, int]:
        self._refusal(Refused(Code.INVALID_ARGUMENT, error.message, rule=f"mcp.protocol.{error.code}"), here)
        status = inbound.ERROR_CODE_HTTP_STATUS.get(error.code, 200) if by_itself else 200
        said = error.model_dump(mode="json", by_alias=True, exclude_none=True)
        return to_json({"jsonrpc": "2.0", "id": request_id, "error": said}), status

    async def _say(self, here: Exchange, request_id: types.RequestId | None, error: types.ErrorData) -> None:
        answer, _ = self._failed(here, request_id, error, by_itself=False)
        await here.answer(400, answer)


def _door_of(ctx: ServerRequestContext[Any, Any]) -> _Door:
    assert isinstance(ctx.request, _Door)
    return ctx.request


class _Door:
    """A call that came by HTTP.

    A tool's answer is JSON already. As the result's data it is put in at the very end: taken apart, looked at by the SDK and
    written anew, fifty messages would cost more than all the rest of the request.
    """

    __slots__ = ("_carry_out", "_data", "_here", "_refusal")

    def __init__(self, here: Exchange, carry_out: CarryOut, refusal: Callable[[Exception, Exchange], Refused]) -> None:
        self._here, self._carry_out, self._refusal = here, carry_out, refusal
        self._data = b""

    @property
    def request_id(self) -> str:
        """Of the HTTP request."""
        return self._here.request_id

    async def carry_out(self, tool: Tool, raw: bytes, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is asked, as the token's holder."""
        here = self._here
        here.operation = f"mcp.{tool.name}"
        if here.caller is not None and not here.caller.traceparent and (trace := traceparent(meta.get("traceparent"))):
            here.caller = here.caller._replace(traceparent=trace)
        self._data = await self._carry_out(here, tool.name, raw)
        return result(self._data, with_data=False)

    def refusal(self, error: Exception) -> Refused:
        """Say what an error means."""
        return self._refusal(error, self._here)

    def with_data(self, answer: bytes) -> bytes:
        """Put the data into a JSON-RPC answer, whose last member is the result."""
        return b'%b,"structuredContent":%b}}' % (answer[:-2], self._data) if self._data else answer


@dataclass(slots=True)
class _Context:
    """What the SDK's kernel wants to know of one request; there is no way back to the client but the answer."""

    request_id: types.RequestId
    message_metadata: ServerMessageMetadata
    transport: TransportContext = _TRANSPORT
    can_send_request: bool = False
    cancel_requested: anyio.Event = field(default_factory=anyio.Event)

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        return None

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        return None


def _message(raw: bytes) -> types.JSONRPCRequest | types.JSONRPCNotification | types.ErrorData:
    try:
        decoded = from_json(raw, allow_inf_nan=False)
    except ValueError:
        return types.ErrorData(code=types.PARSE_ERROR, message="Parse error")
    if body.has_too_many_names(raw):
        return types.ErrorData(code=types.INVALID_REQUEST, message=body.TOO_MANY_NAMES)
    if body.repeated(raw) is not None:
        return types.ErrorData(code=types.INVALID_REQUEST, message="a name stands twice in the same object")
    try:
        if isinstance(decoded, dict) and "id" not in decoded:
            return types.JSONRPCNotification.model_validate(decoded)
        return types.JSONRPCRequest.model_validate(decoded)
    except ValidationError:
        told = "the body must be one JSON-RPC request or notification"
        return types.ErrorData(code=types.INVALID_REQUEST, message=told)


def _route(scope: Scope, request: types.JSONRPCRequest) -> inbound.InboundModernRoute | types.ErrorData:
    """Read what a request of the newer protocol says of itself, in its headers and in its body."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    twice = inbound.find_duplicated_routing_header(headers)
    if twice is not None:
        return types.ErrorData(code=types.HEADER_MISMATCH, message=f"{twice} header appears more than once")
    body = {"method": request.method, "params": request.params}
    found = inbound.classify_inbound_request(body, headers=dict(headers))
    if isinstance(found, inbound.InboundLadderRejection):
        return types.ErrorData(code=found.code, message=found.message, data=found.data)
    return found
