"""HTTP/1.1 as the bridge speaks it: what never becomes a request is refused in the wire's envelope as well, and logged."""

from __future__ import annotations

import secrets
from typing import Final

from orchestration.bridge.http import errors
from orchestration.bridge.refusal import Code, Refused
from orchestration.host.journal import Event, Priority, log
from orchestration.serving import requests
from orchestration.serving.fast import FastProtocol

_LINES: Final = {400: "400 Bad Request", 413: "413 Content Too Large"}


class BridgeProtocol(FastProtocol):
    """As fast as the other, and never without an envelope."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser can't make out. `msg` is the library's; it goes nowhere."""
        self._turn_away(Refused(Code.INVALID_ARGUMENT, "this is no request in HTTP/1.1", rule="http.not_http"))

    def cut_off(self) -> None:
        """Refuse a head that does not end."""
        self._turn_away(Refused(Code.PAYLOAD_TOO_LARGE, "the head of the request is too large", rule="http.head_size"))

    def _turn_away(self, refused: Refused) -> None:
        request_id = secrets.token_hex(8)
        body = errors.envelope(refused, request_id)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": request_id,
            **requests.HEADERS,
        }
        lines = [f"HTTP/1.1 {_LINES[refused.status]}", *(f"{name}: {text}" for name, text in headers.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()
        client = self.transport.get_extra_info("peername")
        log(
            Event.REQUEST_REFUSED,
            f"{refused.status} {refused.code}: {refused.rule}",
            priority=Priority.INFO,
            status=refused.status,
            code=refused.code,
            rule=refused.rule,
            client=client[0] if isinstance(client, tuple) else None,
            request_id=request_id,
        )
