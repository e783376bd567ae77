"""What people ask: the pages, and the style and script that belong to them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from orchestration.pulse.dashboard import pages
from orchestration.pulse.dashboard.place import ASSETS, SERVED, asset, csp
from orchestration.pulse.server.problem import Problem
from orchestration.pulse.server.ways import Parameter, Way
from orchestration.pulse.survey import survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from orchestration.pulse.server.looking import Looking
    from orchestration.settings import Settings
    from orchestration.store.port import Database

_HTML: Final = ("text/html",)
_UNREADABLE: Final = {503: "The store or the settings can't be read now."}
_FOR_GOOD: Final = "public, max-age=31536000, immutable"


class Site:
    """The answers for people."""

    def __init__(self, looking: Looking) -> None:
        self._looking = looking

    def ways(self) -> tuple[Way, ...]:
        """The table of all of them."""
        return (
            Way("/", "overview", "The page: how the loop is.", self.overview, _HTML, _UNREADABLE, strict=False),
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

    async def overview(self, _request: Request) -> Response:
        """Answer /."""
        now, boot_id = self._looking.now(), self._looking.boot_id
        return await self._page(lambda settings, db: pages.overview(survey(settings, db, now, boot_id=boot_id), SERVED))

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

    async def _page(self, see: Callable[[Settings, Database], str]) -> Response:
        text = await self._looking.at(see)
        headers = {"content-security-policy": csp(SERVED), "content-type": "text/html; charset=utf-8"}
        return Response(text.encode("utf-8", "replace"), headers=headers)
