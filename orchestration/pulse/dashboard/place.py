"""Where a page is read: from a file on disk, or from the server; and what it may load there.

The Content-Security-Policy admits exactly the style and the script that belong to the page: by their hash where they stand
in the file itself, by their origin where the server gives them out. No inline attribute, no other host (CSP level 3,
https://www.w3.org/TR/CSP3/).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlencode

STYLE, SCRIPT = "pulse.css", "pulse.js"
ASSETS = {STYLE: "text/css; charset=utf-8", SCRIPT: "text/javascript; charset=utf-8"}
"""What the server gives out below /static/, by name, with the media type."""
_FOLDER = Path(__file__).parent / "static"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A page's surroundings."""

    served: bool
    host: str = ""
    """Name of the host, for the pages whose document does not say it."""
    time_zone: str = "UTC"
    """IANA name of the windows' zone, likewise."""
    refresh_seconds: int = 15
    """How often a served page looks for news while it is visible."""

    def to(self, *parts: object, **query: object) -> str:
        """Return the address of another page; empty for a file, which has no other pages beside it."""
        if not self.served:
            return ""
        path = "/" + "/".join(quote(_bytes(part), safe="") for part in parts)
        given = {name: _bytes(value) for name, value in query.items() if value not in (None, "")}
        return f"{path}?{urlencode(given)}" if given else path

    def file(self, cycle: int, path: str) -> str:
        """Return the address of a file that a cycle left; each part of its path is one of the address."""
        return self.to("api", "v1", "cycles", cycle, "files", *path.split("/"))

    def asset(self, name: str) -> str:
        """Return the address of a style or script, which changes with its content so that it can be kept for good."""
        return f"/static/{name}?v={_digest(name).hex()[:12]}"


FILE = Place(served=False)
SERVED = Place(served=True)


def asset(name: str) -> str:
    """Return the text of a style or script.

    Raises:
        KeyError: there is none of that name.
    """
    if name not in ASSETS:
        raise KeyError(name)
    return _text(name)


def csp_hashes() -> dict[str, str]:
    """Return the CSP source expression of each asset, as it stands inline in a file: `'sha256-…'`."""
    return {name: f"'sha256-{base64.b64encode(_digest(name)).decode()}'" for name in ASSETS}


def csp(place: Place) -> str:
    """Return the Content-Security-Policy: for the file in its `<meta>`, for the server as a header."""
    if not place.served:
        hashes = csp_hashes()
        return _policy(style=hashes[STYLE], script=hashes[SCRIPT])
    return f"{_policy(style=_SELF, script=_SELF)}; connect-src 'self'; frame-ancestors 'none'".replace(
        "form-action 'none'", "form-action 'self'"
    )


_SELF = "'self'"


def _bytes(part: object) -> bytes:
    """Return a part of an address as bytes: of a file name that is no UTF-8, those that it has on disk."""
    try:
        return str(part).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return str(part).encode("utf-8", "replace")


def _policy(*, style: str, script: str) -> str:
    sources = f"style-src {style}; script-src {script}; img-src data:"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


@cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@cache
def _digest(name: str) -> bytes:
    return hashlib.sha256(_text(name).encode()).digest()
