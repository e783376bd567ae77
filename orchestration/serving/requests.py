"""What a server of ours does alike with every request: its id, its method as a label, the headers of each answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from orchestration.host import chance

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


WHOLE: Final = "kloros.whole"
"""Where the scope has its `Whole`, if the server gives one."""


class Whole(Protocol):
    """What a server of ours can do beyond ASGI: bodies and answers that are no streams, at a fraction of the cost."""

    def body(self) -> bytes | None:
        """Return the body if all of it is here already; it then does not come by `receive` any more."""

    def answer(self, head: bytes, body: bytes) -> bool:
        """Send an answer of 200, `head` as its lines go over the wire; False, and nothing is sent, when that can't be."""


def headers(scope: Scope) -> Mapping[bytes, bytes]:
    """Return the headers of a request.

    One that came more than once is the list of its values (RFC 9110, section 5.3), so that whoever stands before us and
    takes the last where we would take the first finds us agreed: two tokens are none.
    """
    given = scope["headers"]
    found: dict[bytes, bytes] = dict(given)
    if len(found) < len(given):
        found.clear()
        for name, value in given:
            found[name] = b"%b, %b" % (found[name], value) if found.get(name) else value
    return found


def header(scope: Scope, wanted: bytes) -> bytes:
    """Return a header's value; empty when it did not come."""
    return headers(scope).get(wanted, b"")


def request_id(given: bytes) -> str:
    """Return the id that came with the request if it is well-formed, else a new one."""
    return given.decode() if given and _REQUEST_ID.fullmatch(given) else chance.digits()[:16]


def method(scope: Scope) -> str:
    """Return the method; `other` for what is not one: it becomes a label."""
    given = str(scope["method"])
    return given if given in _METHODS else "other"


def path_shown(scope: Scope) -> str:
    """Return the path for a log line: in ASCII, not longer than a line should be."""
    path: str = scope.get("raw_path", b"").decode("ascii", "backslashreplace")
    return path if len(path) <= _PATH_SHOWN else f"{path[:_PATH_SHOWN]}…"
