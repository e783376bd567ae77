"""What goes wrong with a request, as the answer says it: status, what and where, and what to do.

For programs it is `application/problem+json` (RFC 9457), for browsers a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestration.errors import KlorosError, SettingsInvalid, StoreUnreachable, Usage
from orchestration.host import clock
from orchestration.pulse.server.words import prefers_html

_Found = TypeVar("_Found")
MEDIA_TYPE: Final = "application/problem+json"


class Problem(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})

    @property
    def title(self) -> str:
        """What RFC 9110 calls the status."""
        return HTTPStatus(self.status).phrase


def there(found: _Found | None, name: str) -> _Found:
    """Return what was found.

    Raises:
        Problem: 404, it was not.
    """
    if found is None:
        raise Problem(404, f"there is no {name}", hint="cycles are listed at /api/v1/cycles, ticks by klorosctl history")
    return found


def of(error: Exception) -> Problem:
    """Turn what a look raised into an answer: what can't be read now is 503, a wrong request 400, else a defect."""
    match error:
        case Problem():
            return error
        case Usage():
            return Problem(400, error.message, hint=error.hint)
        case StoreUnreachable() | SettingsInvalid():
            return Problem(503, error.message, hint=error.hint, headers={"retry-after": "10"})
        case KlorosError():
            return Problem(500, error.message, hint=error.hint)
        case _:
            return Problem(500, "a defect of ours", hint="the log tells more: journalctl -u kloros-pulse.service")


def answer(problem: Problem, request: Request) -> Response:
    """Write a problem for whom it is: a page for a browser that asks for one, else JSON."""
    if prefers_html(request):
        with suppress(Exception):  # a page that can't be made must not hide what was wrong
            return _page(problem)
    document = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "hint": problem.hint,
        "request_id": request.scope.get("kloros.request_id", ""),
    }
    return JSONResponse(document, problem.status, problem.headers, MEDIA_TYPE)


def _page(problem: Problem) -> Response:
    from orchestration.pulse.dashboard import pages, place

    text = pages.problem(problem.status, problem.detail, problem.hint, place.SERVED, now=clock.now())
    headers = {"content-security-policy": place.csp(place.SERVED), **problem.headers}
    return Response(text, problem.status, headers, "text/html; charset=utf-8")
