"""Reads a request's body, bounded in size and time while it comes, and turns it into what a method is asked."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from orchestration.bridge.refusal import Code, Refused
from orchestration.serving import requests

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope

LARGEST: Final = 512 * 1024
"""A message of 64 KiB with every character escaped, its metadata, and air."""
PATIENCE: Final = 20.0
_DRAINED: Final = 4 * 1024 * 1024  # read and thrown away, so that who sends too much can read why
_MOST_FAULTS: Final = 10
_LONGEST_FAULT: Final = 200
_MEASURED: Final = frozenset({("body",), ("title",), ("trigger_prompt",)})
"""Texts whose size is a guard of its own: the rules measure them too, in bytes, and answer alike."""


_NAME: Final = re.compile(rb'"\s*:')
"""The end of a name, and of a text that is no name now and then: as many as an object has at most."""
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"(\s*+:)?')
"""A JSON string, with the colon that makes it a name."""
_MOST_NAMES: Final = 4096
"""More than metadata of 16 KiB holds. To look through 50,000 for one that stands twice takes 10 ms, and all others wait."""
TOO_MANY_NAMES: Final = f"a request may have {_MOST_NAMES} names in its objects"


class ClientGone(Exception):
    """Who asked has left; there is nobody to answer."""


async def read(scope: Scope, receive: Receive, *, patience: float = PATIENCE) -> bytes:
    """Return the whole body; `patience` is in seconds.

    Raises:
        Refused: it is too large, or did not come in time.
        ClientGone
    """
    server: requests.Whole | None = scope.get(requests.WHOLE)
    if server is not None and (whole := server.body()) is not None:
        return _checked(whole)
    declared = requests.header(scope, b"content-length")
    too_large = len(declared) > 12 or (declared.isdigit() and int(declared) > LARGEST)
    if too_large and requests.header(scope, b"expect"):
        raise _too_large()  # before a byte of it is on its way
    try:
        async with asyncio.timeout(patience):
            message = await receive()
            if not message.get("more_body", False) and message["type"] == "http.request" and not too_large:
                return _checked(message.get("body", b""))
            return await _rest(message, receive, too_large=too_large)
    except TimeoutError:
        if too_large:
            raise _too_large() from None
        told = f"the request did not come whole within {patience:g} s"
        raise Refused(Code.INVALID_ARGUMENT, told, rule="http.slow_body") from None


async def _rest(message: Message, receive: Receive, *, too_large: bool) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        too_large = too_large or size > LARGEST
        if too_large:
            parts.clear()
        else:
            parts.append(part)
        if not message.get("more_body", False) or size > _DRAINED:
            break
        message = await receive()
    if too_large:
        raise _too_large()
    return b"".join(parts)


def _checked(body: bytes) -> bytes:
    if len(body) > LARGEST:
        raise _too_large()
    return body


def _too_large() -> Refused:
    told = f"a request may have {LARGEST} bytes"
    return Refused(Code.PAYLOAD_TOO_LARGE, told, rule="http.body_size", details={"largest_bytes": LARGEST})


def check_names(raw: bytes, asked: BaseModel) -> None:
    """See that no name stands twice in an object of a request: which of the two counts differs from parser to parser.

    Counting is enough for most (0.2 to 0.7 µs); those with names that we do not know, or with deep metadata, are read anew.

    Raises:
        Refused: INVALID_ARGUMENT; also for more names than are looked through.
    """
    known = len(asked.model_fields_set)
    if raw.count(b":") <= known:
        return
    if len(_NAME.findall(raw)) <= known + len(getattr(asked, "metadata", ())):
        return
    if has_too_many_names(raw):
        raise Refused(Code.INVALID_ARGUMENT, TOO_MANY_NAMES, rule="http.names", details={"most_names": _MOST_NAMES})
    twice = repeated(raw)
    if twice is not None:
        told = "a name stands twice in the same object"
        raise Refused(Code.INVALID_ARGUMENT, told, rule="http.repeated_name", details={_field((twice,)): "stands twice"})


def has_too_many_names(raw: bytes) -> bool:
    """Tell whether a JSON text has more names, in all its objects together, than are looked through."""
    return len(_NAME.findall(raw)) > _MOST_NAMES and sum(map(bool, _STRING.findall(raw))) > _MOST_NAMES


def repeated(raw: bytes) -> str | None:
    """Return a name that stands twice in one object of a JSON text; None when there is none."""
    found: str | None = None

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        if len(dict(pairs)) < len(pairs):
            ((found, _),) = Counter(name for name, _ in pairs).most_common(1)

    json.loads(raw.decode(), object_pairs_hook=look)
    return found


def invalid(error: ValidationError) -> Refused:
    """Say which fields of a request are wrong, and how; never what stood in them."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    details = {_field(one["loc"]): one["msg"][:_LONGEST_FAULT] for one in faults[:_MOST_FAULTS]}
    is_json = any(one["type"] == "json_invalid" for one in faults)
    if is_json:
        return Refused(Code.INVALID_ARGUMENT, "the body is not JSON", rule="http.not_json", details=details)
    if all(one["type"] == "string_too_long" and one["loc"] in _MEASURED for one in faults):
        told = f"too large: {', '.join(details)}"
        return Refused(Code.PAYLOAD_TOO_LARGE, told, rule="http.text_size", details=details)
    named = ", ".join(details)
    rule = "http.schema_version" if "schema_version" in details else "http.fields"
    return Refused(Code.INVALID_ARGUMENT, f"what was asked is not valid: {named}", rule=rule, details=details)


def _field(loc: tuple[int | str, ...]) -> str:
    """Write a field's path as programs do: `participants[3]`; `body` for the whole."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part[:64]}" if path else part[:64]
    return path or "body"
