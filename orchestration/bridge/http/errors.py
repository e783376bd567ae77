"""Turns whatever went wrong with a request into the wire's envelope, with nothing in it that is ours alone."""

from __future__ import annotations

import json
import math
from typing import Final

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from orchestration.bridge.auth.claims import Rejected
from orchestration.bridge.http import body
from orchestration.bridge.http.exchange import Exchange
from orchestration.bridge.refusal import RETRYABLE, Code, Refused
from orchestration.errors import KlorosError
from orchestration.host import clock
from orchestration.store.instants import to_text

_RETRY_AFTER: Final = {Code.UNAVAILABLE: 2.0, Code.RATE_LIMITED: 1.0}  # seconds, where the refusal says nothing itself
UNAUTHORIZED: Final = "a valid token is needed"
_CHALLENGE: Final = (b"www-authenticate", b'Bearer realm="KLoROS"')


def refusal(error: Exception) -> Refused | None:
    """Return what an error means for whoever asked; None for a defect of ours."""
    match error:
        case Refused():
            return error
        case Rejected():
            return Refused(Code.UNAUTHORIZED, UNAUTHORIZED, rule=error.rule)
        case ValidationError():
            return body.invalid(error)
        case HTTPException(status_code=404):
            return Refused(Code.NOT_FOUND, "there is nothing at this address", rule="http.address")
        case HTTPException(status_code=405):
            return Refused(Code.INVALID_ARGUMENT, "this address is asked by another HTTP method", rule="http.method")
        case KlorosError(retryable=True):
            return Refused(Code.UNAVAILABLE, "the bridge can't answer now", rule="unavailable")
        case _:
            return None


async def answer(error: Refused, exchange: Exchange, *, status: int | None = None, allow: str = "") -> None:
    """Send the envelope."""
    headers: list[tuple[bytes, bytes]] = []
    if error.code is Code.UNAUTHORIZED:
        headers.append(_CHALLENGE)
    if error.code in RETRYABLE:
        seconds = error.retry_after if error.retry_after is not None else _RETRY_AFTER[error.code]
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(seconds))))
    if allow:
        headers.append((b"allow", allow.encode()))
    if error.rule in ("http.body_size", "http.slow_body"):
        headers.append((b"connection", b"close"))  # the rest of the body is not wanted
    await exchange.answer(status or error.status, envelope(error, exchange.request_id), *headers)


def envelope(error: Refused, request_id: str) -> bytes:
    """Return the wire's form of a refusal."""
    document = {
        "error": {
            "code": error.code,
            "message": error.message,
            "details": error.details,
            "retryable": error.code in RETRYABLE,
        },
        "request_id": request_id,
        "occurred_at": to_text(clock.now()),
    }
    return json.dumps(document).encode() + b"\n"
