"""What people ask: the pages, and the style and script that belong to them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from orchestration.pulse import records
from orchestration.pulse.dashboard import pages
from orchestration.pulse.dashboard.place import ASSETS, SERVED, Place, asset, csp
from orchestration.pulse.server.cycles import CYCLE_PARAMETERS, cycle_query, number_of
from orchestration.pulse.server.problem import Problem, there
from orchestration.pulse.server.ways import UNREADABLE, Parameter, Way
from orchestration.pulse.survey import survey

if TYPE_CHECKING:
    from starlette.requests import Request

    from orchestration.pulse.server.looking import Looking
    from orchestration.settings import Settings
    from orchestration.store.port import Database

_HOST: Final = os.uname().nodename
_FOR_GOOD: Final = "public, max-age=31536000, immutable"


class Site:
    """The answers for people."""

    def __init__(self, looking: Looking) -> None:
        self._looking = looking

    def ways(self) -> tuple[Way, ...]:
        """The table of all of them."""
        return (
            self._way("/", "overview", "The page: how the loop is.", self.overview),
            self._way("/cycles", "cycles_page", "The cycles, page by page.", self.cycles, CYCLE_PARAMETERS),
            self._way("/cycles/{cycle:int}", "cycle_page", "One cycle.", self.cycle),
            self._way("/ticks/{tick}", "tick_page", "One tick.", self.tick),
            self._way("/promotions", "promotions_page", "The promotions.", self.promotions),
            self._way("/intents", "intents_page", "The intents.", self.intents),
            self._way("/calendar", "calendar_page", "PHASE by date.", self.calendar),
            Way(
                "/static/{name}",
                "asset",
                "Style and script of the pages.",
                self.asset,
                tuple(sorted(one.partition(";")[0] for one in ASSETS.values())),
                {304: "The reader has it.", 404: "There is none of that name."},
                (Parameter("v", "Changes with the content; with it the answer can be kept for good.", {"type": "string"}),),
            ),
        )

    @staticmethod
    def _way(
        path: str,
        name: str,
        about: str,
        answer: Callable[[Request], Awaitable[Response]],
        parameters: tuple[Parameter, ...] = (),
    ) -> Way:
        statuses = {**UNREADABLE, **({404: "There is none of that number or name."} if "{" in path else {})}
        return Way(path, name, about, answer, ("text/html",), statuses, parameters, strict=False)

    async def overview(self, _request: Request) -> Response:
        """Answer /."""
        return await self._page(
            lambda settings, db, place, now: pages.overview(survey(settings, db, now, boot_id=self._looking.boot_id), place)
        )

    async def cycles(self, request: Request) -> Response:
        """Answer /cycles."""
        query = cycle_query(request)
        return await self._page(
            lambda _settings, db, place, now: pages.cycles(records.cycle_page(db, query), place, now=now)
        )

    async def cycle(self, request: Request) -> Response:
        """Answer /cycles/N."""
        number = number_of(request)

        def see(settings: Settings, db: Database, place: Place, now: datetime) -> str:
            detail = there(records.cycle_detail(settings, db, number), f"cycle {number}")
            return pages.cycle(detail, place, now=now)

        return await self._page(see)

    async def tick(self, request: Request) -> Response:
        """Answer /ticks/NAME."""
        name = request.path_params["tick"]

        def see(_settings: Settings, db: Database, place: Place, now: datetime) -> str:
            return pages.tick(there(records.tick_detail(db, name), "tick of that id or number"), place, now=now)

        return await self._page(see)

    async def promotions(self, _request: Request) -> Response:
        """Answer /promotions."""
        return await self._page(
            lambda settings, db, place, now: pages.promotions(records.promotions_view(settings, db), place, now=now)
        )

    async def intents(self, _request: Request) -> Response:
        """Answer /intents."""
        return await self._page(
            lambda settings, db, place, now: pages.intents(records.intents_view(settings, db), place, now=now)
        )

    async def calendar(self, _request: Request) -> Response:
        """Answer /calendar."""
        return await self._page(
            lambda settings, db, place, now: pages.calendar(records.calendar_view(settings, db, now), place, now=now)
        )

    async def asset(self, request: Request) -> Response:
        """Answer /static/NAME."""
        name = request.path_params["name"]
        if name not in ASSETS:
            raise Problem(404, "there is no such style or script", hint=f"there is {', '.join(ASSETS)}")
        content = asset(name).encode()
        digest = hashlib.sha256(content).hexdigest()
        etag = f'"{digest[:32]}"'
        named = request.query_params.get("v", "")
        kept = _FOR_GOOD if len(named) >= 8 and digest.startswith(named) else "no-cache"
        headers = {"etag": etag, "cache-control": kept}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers={**headers, "content-type": ASSETS[name]})

    async def _page(self, see: Callable[[Settings, Database, Place, datetime], str]) -> Response:
        now = self._looking.now()

        def look(settings: Settings, db: Database) -> str:
            return see(settings, db, replace(SERVED, host=_HOST, time_zone=settings.phase.time_zone), now)

        text = await self._looking.at(look)
        headers = {"content-security-policy": csp(SERVED), "content-type": "text/html; charset=utf-8"}
        return Response(text.encode("utf-8", "replace"), headers=headers)
