"""What a server of ours does alike with every request: its id, its method as a label, the headers of each answer."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Scope

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PATH_SHOWN: Final = 200
HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every answer, unless it says otherwise."""


def header(scope: Scope, wanted: bytes) -> bytes:
    """Return a header's value; empty when it did not come.

    One that came more than once is the list of its values (RFC 9110, section 5.3), so that whoever stands before us and
    takes the last where we would take the first finds us agreed: two tokens are none.
    """
    found = b""
    for name, value in scope["headers"]:
        if name == wanted:
            found = b"%b, %b" % (found, value) if found else bytes(value)
    return found


def request_id(scope: Scope) -> str:
    """Return the id that came with the request if it is well-formed, else a new one."""
    given = header(scope, b"x-request-id")
    return given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def method(scope: Scope) -> str:
    """Return the method; `other` for what is not one: it becomes a label."""
    given = str(scope["method"])
    return given if given in _METHODS else "other"


def path_shown(scope: Scope) -> str:
    """Return the path for a log line: in ASCII, not longer than a line should be."""
    path: str = scope.get("raw_path", b"").decode("ascii", "backslashreplace")
    return path if len(path) <= _PATH_SHOWN else f"{path[:_PATH_SHOWN]}…"
