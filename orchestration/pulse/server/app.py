"""Everything that is served, put together: the table of ways, the guard around it.

`routes` are Starlette's, so that another face can be mounted beside them in the same process, behind the same guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Router

from orchestration.pulse.server.api import Api
from orchestration.pulse.server.documents import Document
from orchestration.pulse.server.following import Following
from orchestration.pulse.server.guard import Guard
from orchestration.pulse.server.openapi import description
from orchestration.pulse.server.site import Site
from orchestration.pulse.server.traffic import Traffic
from orchestration.pulse.server.ways import Way

if TYPE_CHECKING:
    from orchestration.pulse.server.admission import Admission
    from orchestration.pulse.server.looking import Looking


class Application(NamedTuple):
    """An ASGI application, and what its process must know of it."""

    app: Guard
    traffic: Traffic
    following: Following


def ways(looking: Looking, following: Following, traffic: Traffic) -> tuple[Way, ...]:
    """Return the table of all addresses; more specific ones stand before wider ones."""
    listed = (*Api(looking, following, traffic).ways(), *Site(looking).ways())

    async def openapi(_request: Request) -> Response:
        return Document(described)

    own = Way("/openapi.json", "openapi", "This description.", openapi, ("application/json",), {}, strict=False)
    described = description((*listed, own))
    return (*listed, own)


def routes(looking: Looking, following: Following, traffic: Traffic) -> list[BaseRoute]:
    """Return the routes of Pulse."""
    return [way.route() for way in ways(looking, following, traffic)]


def application(looking: Looking, admission: Admission, beside: Sequence[BaseRoute] = ()) -> Application:
    """Put the application together; `beside` are routes of other faces, asked first."""
    traffic = Traffic()
    following = Following(traffic)
    router = Router([*beside, *routes(looking, following, traffic)], redirect_slashes=False)
    return Application(Guard(router, admission=admission, traffic=traffic), traffic, following)
