"""What programs ask: metrics, health of process and loop, ticks; cycles are in `cycles.py`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from orchestration import __version__
from orchestration.errors import KlorosError
from orchestration.pulse import document, health, metrics, records, signs
from orchestration.pulse.health import Judgement, Verdict
from orchestration.pulse.server.cycles import Cycles
from orchestration.pulse.server.documents import Document
from orchestration.pulse.server.problem import there
from orchestration.pulse.server.ways import ABSENT, JSON, TEXT, UNREADABLE, Parameter, Way, whole
from orchestration.pulse.server.words import preferred
from orchestration.pulse.survey import survey

if TYPE_CHECKING:
    from starlette.requests import Request

    from orchestration.pulse.server.following import Following
    from orchestration.pulse.server.looking import Looking
    from orchestration.pulse.server.traffic import Traffic
    from orchestration.settings import Settings
    from orchestration.store.port import Database

OPENMETRICS: Final = "application/openmetrics-text"
_METRICS: Final = {
    TEXT: "text/plain; version=0.0.4; charset=utf-8",
    OPENMETRICS: "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
_MOST_CYCLES: Final = 500
_MOST_VERSIONS: Final = 500
_LIMIT: Final = Parameter(
    "limit", "At most so many of the newest.", {"type": "integer", "minimum": 1, "maximum": _MOST_VERSIONS, "default": 20}
)


class Api:
    """The answers for programs."""

    def __init__(self, looking: Looking, following: Following, traffic: Traffic) -> None:
        self._looking = looking
        self._cycles = Cycles(looking, following)
        self._traffic = traffic
        self._started = time.monotonic()

    def ways(self) -> tuple[Way, ...]:
        """The table of all of them."""
        return (*self._own(), *self._cycles.ways())

    def _own(self) -> tuple[Way, ...]:
        return (
            Way(
                "/metrics",
                "metrics",
                "The textfile's metrics as they are now, and those of this server; OpenMetrics if Accept prefers it.",
                self.metrics,
                (TEXT, OPENMETRICS),
                UNREADABLE,
                strict=False,
            ),
            Way("/health", "process_health", "Whether this process works.", self.health, JSON, {}, strict=False),
            Way(
                "/ready",
                "ready",
                "Whether the store can be read, is current, and the loop is at work.",
                self.ready,
                JSON,
                {503: "It is not; `reasons` says why."},
                strict=False,
            ),
            Way(
                "/api/v1/health",
                "loop_health",
                "The whole of loop_health, see docs/reference/loop-health.md.",
                self.loop_health,
                JSON,
                UNREADABLE,
                (
                    Parameter(
                        "cycles",
                        "At most so many of the newest cycles.",
                        {"type": "integer", "minimum": 0, "maximum": _MOST_CYCLES, "default": 50},
                    ),
                ),
            ),
            Way(
                "/api/v1/baseline",
                "baseline",
                "The accepted parameters: version in force, and the newest versions with the verdicts on them.",
                self.baseline,
                JSON,
                UNREADABLE,
                (_LIMIT,),
            ),
            Way(
                "/api/v1/escrow",
                "escrow",
                "Accepted changes that wait for a person, and the newest that were decided on.",
                self.escrow,
                JSON,
                UNREADABLE,
                (_LIMIT,),
            ),
            Way(
                "/api/v1/ticks/{tick}",
                "tick",
                "One tick by its id or its number, with what it found and why it decided.",
                self.tick,
                JSON,
                {**ABSENT, **UNREADABLE},
            ),
        )

    async def metrics(self, request: Request) -> Response:
        """Answer /metrics."""
        wanted = preferred(request.headers.get("accept", ""), (TEXT, OPENMETRICS)) or TEXT
        openmetrics = wanted == OPENMETRICS
        ours = await self._looking.at(lambda settings, db: self._exposition(settings, db, openmetrics=openmetrics))
        text = ours + self._traffic.text(openmetrics=openmetrics)
        return Response(text.encode(), headers={"content-type": _METRICS[wanted], "vary": "accept"})

    async def health(self, _request: Request) -> Response:
        """Answer /health."""
        uptime = round(time.monotonic() - self._started, 3)
        return Document({"status": "ok", "version": __version__, "pid": os.getpid(), "uptime_seconds": uptime})

    async def ready(self, _request: Request) -> Response:
        """Answer /ready."""
        try:
            reasons = await self._looking.at(lambda settings, db: _not_at_work(self._judged(settings, db)))
        except KlorosError as error:
            reasons = [{"reason": "store", "detail": error.message, "hint": error.hint}]
        return Document({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def loop_health(self, request: Request) -> Response:
        """Answer /api/v1/health."""
        number = whole(request, "cycles", 50, least=0, most=_MOST_CYCLES)
        now, boot_id = self._looking.now(), self._looking.boot_id
        shown = await self._looking.at(
            lambda settings, db: document.as_json(survey(settings, db, now, boot_id=boot_id, cycles=number))
        )
        return Document(shown)

    async def baseline(self, request: Request) -> Response:
        """Answer /api/v1/baseline."""
        limit = _limit(request)
        return Document(await self._looking.at(lambda settings, db: records.baseline_view(settings, db, limit=limit)))

    async def escrow(self, request: Request) -> Response:
        """Answer /api/v1/escrow."""
        limit = _limit(request)
        return Document(await self._looking.at(lambda _settings, db: records.escrow_view(db, limit=limit)))

    async def tick(self, request: Request) -> Response:
        """Answer /api/v1/ticks/N."""
        name = request.path_params["tick"]
        found = await self._looking.at(lambda _settings, db: records.tick_detail(db, name))
        return Document(there(found, "tick of that id or number"))

    def _exposition(self, settings: Settings, db: Database, *, openmetrics: bool) -> str:
        values = metrics.read(db)
        scope = signs.scope(settings, db, values)
        seen = signs.read(settings, db, values, self._looking.now(), scope)
        judgement = health.judge(seen, signs.since(db))
        metrics.note_health(values, seen, signs.told(judgement, elsewhere=seen.elsewhere))
        return metrics.exposition(values, more=signs.families(scope), openmetrics=openmetrics)

    def _judged(self, settings: Settings, db: Database) -> Judgement:
        values = metrics.read(db)
        seen = signs.read(settings, db, values, self._looking.now(), signs.scope(settings, db, values))
        return health.judge(seen, signs.since(db))


def _limit(request: Request) -> int:
    return whole(request, "limit", 20, least=1, most=_MOST_VERSIONS)


def _not_at_work(judgement: Judgement) -> list[dict[str, str]]:
    """Name the causes for which nothing is decided or run."""
    return [
        {"reason": str(cause.condition), "detail": cause.evidence, "hint": cause.advice}
        for cause in judgement.causes
        if cause.verdict in (Verdict.STOPPED, Verdict.UNKNOWN)
    ]
