"""The bridge as one ASGI application: its addresses, and what every request passes on its way in and out.

Owns the order of things: an id first, then the address, the token, the body, the command; then one envelope for whatever
went wrong, one line in the log and the metrics. What was refused is told with the rule that refused; the rule stays here.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, Router

from orchestration.bridge.http import errors, openapi, page
from orchestration.bridge.http.body import ClientGone
from orchestration.bridge.http.commanding import Commanding, Refuse
from orchestration.bridge.http.exchange import Exchange, of
from orchestration.bridge.http.journal import AnswerLog
from orchestration.bridge.http.measures import Measures
from orchestration.bridge.http.streaming import Streaming
from orchestration.bridge.mcp.face import McpFace, Names
from orchestration.bridge.methods import METHODS
from orchestration.bridge.refusal import Code, Refused
from orchestration.host.journal import Event, Priority, log
from orchestration.serving import requests

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from orchestration.bridge.auth.tokens import Verifier
    from orchestration.bridge.http.tracing import Tracing
    from orchestration.bridge.methods import Method

PREFIXES: Final = ("/v1/", "/mcp", "/.well-known/", "/health", "/ready", "/metrics")
"""Of every address of the bridge: where another face is served beside it, these are the bridge's."""
_OFTEN: Final = frozenset({"health", "ready", "metrics"})
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_CACHED: Final = {"cache-control": "public, max-age=60"}
Checks = Callable[[], Awaitable[Mapping[str, str]]]


class Face:
    """The bridge over HTTP."""

    def __init__(
        self,
        commands: Any,
        verifier: Verifier,
        *,
        checks: Checks,
        jwks: Callable[[], Mapping[str, Any]],
        methods: Sequence[Method] = METHODS,
        refuse: Refuse | None = None,
        beside: Sequence[BaseRoute] = (),
        admits: Callable[[str, str], bool] = lambda _host, _authorization: True,
        names: Names | None = None,
        heartbeat: float = 15.0,
        tracing: Tracing | None = None,
    ) -> None:
        """Put it together.

        Args:
            commands: an object with one coroutine function per method, `await commands.post_message(caller, asked)`.
            checks: what `/ready` asks; by name what is wrong, or an empty text.
            jwks: the public keys of this host's own issuer; none where tokens come from elsewhere.
            admits: whether who asks under this `Host`, with this `Authorization`, may read the metrics.
            names: under which names MCP may be asked, and which pages are ours; None for any, and none.
            refuse: takes note, in the audit, of what a verified caller asked in a form that no method takes; and raises it.
            beside: further routes, asked last. heartbeat: seconds between two signs of life on an event stream.
            tracing: where a span of every request goes; None: nowhere.
        """
        self.measures = Measures()
        self._tracing = tracing
        self.answers = AnswerLog()
        self.crowded: Callable[[], bool] = lambda: False
        """Whether so many connections are open that one more request is too many."""
        self._checks = checks
        self._jwks = jwks
        self._admits = admits
        self._commanding = Commanding(commands, methods, verifier, self.measures, refuse)
        doing = self._commanding
        self._tools = McpFace(
            methods, verifier, read=doing.read, carry_out=doing.carry_out, refusal=self._refusal, names=names
        )
        self._streaming = Streaming(commands.read_messages, verifier, self.measures, note=doing.note, heartbeat=heartbeat)
        self._described = openapi.description(methods)
        self._page = page.of(self._described)
        self._router = Router(
            [
                Route("/v1/threads/{thread_id}/events", self._streaming),
                self._document("/health", "health", self._health),
                self._document("/ready", "ready", self._ready),
                self._document("/metrics", "metrics", self._metrics),
                self._document("/.well-known/jwks.json", "jwks", self._keys),
                self._document("/v1/openapi.json", "openapi", self._openapi),
                self._document("/v1/docs", "docs", self._docs),
                *beside,
            ],
            redirect_slashes=False,
        )

    @property
    def quiet_seconds(self) -> float:
        """For how long nobody has asked for anything; 0 while somebody is being answered."""
        return self.measures.quiet_seconds

    def stop(self) -> None:
        """End what would go on without end."""
        self._streaming.stop()

    def end(self) -> None:
        """Write the last lines of the log."""
        self.answers.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served here")
        exchange = Exchange(scope, receive, send)
        began = self.measures.began()
        try:
            if self.crowded():
                raise Refused(Code.UNAVAILABLE, "too many connections are open", rule="http.connections", retry_after=5)
            if (command := self._commanding.at(scope["path"])) is not None:
                await self._commanding.answer(exchange, command)
            elif scope["path"] == "/mcp":
                await self._tools.answer(exchange)
            else:
                scope["kloros.exchange"] = exchange
                scope["app"] = self  # without it, starlette writes its own words for 404 and 405
                await self._router(scope, receive, exchange.send)
        except ClientGone:
            pass
        except Exception as error:
            if exchange.status:
                _tell_defect(exchange)
                raise  # half an answer is out: the connection must break
            await self._refuse(error, exchange)
        finally:
            method = requests.method(scope)
            operation, status = exchange.operation, exchange.status
            seconds = self.measures.ended(began, operation, method, status, timed=not exchange.waits)
            self.measures.delivered(operation, status, exchange.rule)
            self._tell(exchange, method, seconds)
            if self._tracing is not None:
                self._tracing.answered(exchange, method, seconds)

    def _tell(self, exchange: Exchange, method: str, seconds: float) -> None:
        status, caller = exchange.status, exchange.caller
        refused = bool(exchange.rule)
        went_well = 200 <= status < 400 and not refused
        if went_well and self.answers.full:
            self.answers.drop()
            return
        path = requests.path_shown(exchange.scope)
        client = exchange.scope.get("client")
        fields: dict[str, Any] = {
            "operation": exchange.operation,
            "method": method,
            "path": path,
            "status": status,
            "code": exchange.code or None,
            "rule": exchange.rule or None,
            "seconds": round(seconds, 6),
            "bytes": exchange.answered,
            "client": client[0] if client else None,
            "request_id": exchange.request_id,
            "agent_id": caller.agent_id if caller else None,
            "workspace_id": caller.workspace_id if caller else None,
            "token_id": caller.token_id if caller else None,
            "thread_id": exchange.thread_id,
            "traceparent": (caller.traceparent or None) if caller else None,
        }
        message = f"{method} {path} {status}"
        if went_well:
            fields["priority"] = Priority.DEBUG if exchange.operation in _OFTEN else Priority.INFO
            self.answers.take(message, fields)
            return
        priority = Priority.NOTICE if status in (401, 403) else Priority.INFO
        log(
            Event.REQUEST_REFUSED if refused else Event.REQUEST_ANSWERED,
            message + (f" {exchange.code}: {exchange.rule}" if refused else ""),
            priority=Priority.WARNING if status >= 500 else priority,
            **fields,
        )

    async def _refuse(self, error: Exception, exchange: Exchange) -> None:
        refused = self._refusal(error, exchange)
        allow = dict(error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
        await errors.answer(refused, exchange, status=405 if refused.rule == "http.method" else None, allow=allow)

    def _refusal(self, error: Exception, exchange: Exchange) -> Refused:
        refused = errors.refusal(error)
        if refused is None:
            _tell_defect(exchange)
            refused = Refused(Code.INTERNAL, "a defect of ours; the request id leads to it in our log", rule="defect")
        exchange.code, exchange.rule = refused.code, refused.rule
        self.measures.failed(refused.code)
        if refused.code is Code.UNAUTHORIZED:
            self.measures.not_taken(refused.rule)
        return refused

    def _document(self, path: str, operation: str, answer: Callable[[Request], Awaitable[Response]]) -> Route:
        async def answered(request: Request) -> Response:
            of(request.scope).operation = operation
            return await answer(request)

        return Route(path, answered, methods=["GET"], name=operation)

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _ready(self, _request: Request) -> Response:
        try:
            wrong = {name: what for name, what in (await self._checks()).items() if what}
        except Exception:
            log(Event.BRIDGE_FAILED, traceback.format_exc(), priority=Priority.ERROR)
            wrong = {"checks": "they failed"}
        return JSONResponse({"ready": not wrong, "reasons": wrong}, 503 if wrong else 200)

    async def _metrics(self, request: Request) -> Response:
        if not self._admits(request.headers.get("host", ""), request.headers.get("authorization", "")):
            raise Refused(Code.UNAUTHORIZED, errors.UNAUTHORIZED, rule="http.metrics")
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        text = self.measures.text(openmetrics=openmetrics)
        return Response(text, media_type=_OPENMETRICS if openmetrics else _METRICS)

    async def _keys(self, _request: Request) -> Response:
        return JSONResponse(self._jwks(), headers=_CACHED)

    async def _openapi(self, _request: Request) -> Response:
        return JSONResponse(self._described)

    async def _docs(self, _request: Request) -> Response:
        return Response(self._page, headers={"content-security-policy": page.CSP}, media_type="text/html; charset=utf-8")


class Beside:
    """The bridge and another face in one process, told apart by the address; each has its own way to admit."""

    def __init__(self, bridge: ASGIApp, other: ASGIApp) -> None:
        self._bridge, self._other = bridge, other

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        here = scope["type"] == "http" and scope["path"].startswith(PREFIXES)
        return (self._bridge if here else self._other)(scope, receive, send)


def _tell_defect(exchange: Exchange) -> None:
    log(Event.BRIDGE_FAILED, traceback.format_exc(), priority=Priority.ERROR, request_id=exchange.request_id)
