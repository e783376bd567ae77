"""One way into the server: address, parameters, answers. Routing, the checks of parameters and OpenAPI are made from it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestration.pulse.server.problem import Problem

LARGEST = 2**63 - 1
"""Of SQLite's integers."""
TEXT: Final = "text/plain"
JSON: Final = ("application/json",)
UNREADABLE: Final = {503: "The store or the settings can't be read now."}
ABSENT: Final = {404: "There is none of that number or name."}


class Parameter(NamedTuple):
    """Something that a request may say: in the query, or in a header."""

    name: str
    about: str
    schema: Mapping[str, Any]  # JSON Schema
    where: str = "query"


class Way(NamedTuple):
    """One address."""

    path: str  # starlette's form: /api/v1/cycles/{cycle:int}
    name: str  # operation id
    about: str
    answer: Callable[[Request], Awaitable[Response]]
    media_types: tuple[str, ...]  # of the 200
    statuses: Mapping[int, str]  # besides 200, 421, 401, 405
    parameters: tuple[Parameter, ...] = ()
    strict: bool = True  # a query parameter that is not known is a mistake

    def route(self) -> Route:
        """Make the route."""
        return Route(self.path, _counted(self), methods=["GET"], name=self.name)

    def query(self) -> tuple[Parameter, ...]:
        """The parameters of the query."""
        return tuple(one for one in self.parameters if one.where == "query")


def _counted(way: Way) -> Callable[[Request], Awaitable[Response]]:
    @functools.wraps(way.answer)
    async def answer(request: Request) -> Response:
        request.scope["kloros.route"] = way.path
        if way.strict:
            _check(request, way)
        return await way.answer(request)

    return answer


def _check(request: Request, way: Way) -> None:
    known = [one.name for one in way.query()]
    for name in request.query_params:
        if name not in known:
            there = f"known here: {', '.join(known)}" if known else "this address takes none"
            raise Problem(400, f"there is no parameter {_shown(name)}", hint=there)
        if len(request.query_params.getlist(name)) > 1:
            raise Problem(400, f"the parameter {name} is given twice", hint="give it once")


def whole(request: Request, name: str, default: int, *, least: int, most: int) -> int:
    """Read a whole number from the query.

    Raises:
        Problem: 400.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 19 and least <= int(text) <= most):
        raise Problem(400, f"{name} = {_shown(text)} is no whole number from {least} to {most}", hint=f"{name}={default}")
    return int(text)


def one_of(request: Request, name: str, known: type[Any], default: Any = None) -> Any:
    """Read a member of an enum from the query; empty is as good as absent.

    Raises:
        Problem: 400.
    """
    text = request.query_params.get(name, "")
    if not text:
        return default
    try:
        return known(text)
    except ValueError:
        hint = f"one of {', '.join(str(one.value) for one in known)}"
        raise Problem(400, f"{name} = {_shown(text)} is not known", hint=hint) from None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
