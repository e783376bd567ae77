"""What every request passes on its way in and every answer on its way out: admission, request id, headers, log, metrics.

Plain ASGI around whatever is served, so that what is mounted beside Pulse later passes it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request

from orchestration.host.journal import Event, Priority, log
from orchestration.pulse.server import problem
from orchestration.pulse.server.problem import Problem
from orchestration.serving import requests

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from orchestration.pulse.server.admission import Admission
    from orchestration.pulse.server.traffic import Traffic

_OFTEN: Final = frozenset({"/metrics", "/health", "/ready"})
_CHALLENGES: Final = ('Basic realm="KLoROS", charset="UTF-8"', 'Bearer realm="KLoROS"')


class Guard:
    """An ASGI application around another."""

    def __init__(self, inner: ASGIApp, *, admission: Admission, traffic: Traffic) -> None:
        self._inner = inner
        self._admission = admission
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; of the process's life the inner application is told directly."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        scope["app"] = self  # without it, starlette writes its own words for 404 and 405
        began = self._traffic.began()
        try:
            await self._answer(scope, receive, exchange)
        finally:
            seconds = self._traffic.ended(
                began, route=exchange.route, method=exchange.method, status=exchange.status, timed=not exchange.streams
            )
            _tell(exchange, seconds)

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        request = Request(scope, receive)
        try:
            self._check(request)
            await self._inner(scope, receive, exchange.send)
        except Exception as error:
            if exchange.status:
                raise  # half an answer is out: the connection must break
            found = _problem(error)
            if found.status == 500:
                import traceback

                log(Event.PULSE_FAILED, traceback.format_exc(), priority=Priority.ERROR, request_id=exchange.request_id)
            await problem.answer(found, request)(scope, receive, exchange.send)

    def _check(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if not self._admission.knows(host):
            raise Problem(
                421,
                "this server does not go by the name it was asked under",
                hint="use http://localhost:PORT, or add the name to [pulse] hosts and restart kloros-pulse.service",
            )
        if not self._admission.admits(request.headers.get("authorization", "")):
            raise Problem(
                401,
                "a token is needed",
                hint="send Authorization: Bearer TOKEN; in a browser give the token as the password, with any name",
            )


class _Exchange:
    """One request and what has been answered so far."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.status = 0
        self.bytes = 0
        self.streams = False
        self.request_id = requests.request_id(requests.header(scope, b"x-request-id"))
        scope["kloros.request_id"] = self.request_id
        self._send = send

    @property
    def route(self) -> str:
        """The route's pattern, never the path itself: that may be anything."""
        return str(self.scope.get("kloros.route", "none"))

    @property
    def method(self) -> str:
        """The method, `other` for what is not one."""
        return requests.method(self.scope)

    async def send(self, message: Message) -> None:
        """Send one part of the answer, the first with the headers that all have."""
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = MutableHeaders(scope=message)
            self.streams = headers.get("content-type", "").startswith("text/event-stream")
            for name, value in requests.HEADERS.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = self.request_id
            if self.status == 401:
                for challenge in _CHALLENGES:
                    headers.append("www-authenticate", challenge)
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        await self._send(message)


def _problem(error: Exception) -> Problem:
    if not isinstance(error, HTTPException):
        return problem.of(error)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    match error.status_code:
        case 404:
            return Problem(404, "there is nothing at this address", hint="the page is at /, the API at /openapi.json")
        case 405:
            headers["allow"] = ", ".join(sorted(headers.get("allow", "GET, HEAD").replace(" ", "").split(",")))
            return Problem(405, "this address can only be read", hint=f"use {headers['allow']}", headers=headers)
        case status:
            return Problem(status, error.detail, headers=headers)


def _tell(exchange: _Exchange, seconds: float) -> None:
    status = exchange.status
    shown = requests.path_shown(exchange.scope)
    priority = Priority.WARNING if status >= 500 else Priority.INFO
    client = exchange.scope.get("client")
    log(
        Event.REQUEST_ANSWERED,
        f"{exchange.method} {shown} {status}",
        priority=Priority.DEBUG if shown in _OFTEN and status < 400 else priority,
        method=exchange.method,
        path=shown,
        status=status,
        seconds=round(seconds, 6),
        bytes=exchange.bytes,
        client=client[0] if client else None,
        request_id=exchange.request_id,
    )
