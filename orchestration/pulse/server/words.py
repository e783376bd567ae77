"""Reads what a request says of itself: which media type it prefers, and its parameters, each checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.requests import Request

_MACHINES: Final = ("/api/", "/static/", "/metrics", "/health", "/ready", "/openapi.json")


def prefers_html(request: Request) -> bool:
    """Tell whether a page is wanted: not below the API, and `Accept` names HTML or nothing."""
    if request.url.path.startswith(_MACHINES):
        return False
    accepted = request.headers.get("accept", "")
    return "text/html" in accepted or accepted in ("", "*/*")


def preferred(accept: str, offered: Iterable[str]) -> str | None:
    """Return which of the offered media types an `Accept` header prefers; of equals the first offered, None for none.

    RFC 9110, section 12.5.1: weights from 0 to 1; a range that is more exact counts instead of a wider one.
    """
    ranges = list(_ranges(accept or "*/*"))
    weighed = [(_weight(one, ranges), -position, one) for position, one in enumerate(offered)]
    best = max(weighed, default=(0.0, 0, ""))
    return best[2] if best[0] > 0 else None


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for one in accept.split(","):
        media_type, *parameters = [part.strip().lower() for part in one.split(";")]
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            weight = float(given.get("q", 1))
        except ValueError:
            weight = 0.0
        if media_type:
            yield media_type, min(max(weight, 0.0), 1.0)


def _weight(offered: str, ranges: list[tuple[str, float]]) -> float:
    kind = offered.partition("/")[0]
    for wanted in (offered, f"{kind}/*", "*/*"):
        found = [weight for media_type, weight in ranges if media_type == wanted]
        if found:
            return max(found)
    return 0.0
