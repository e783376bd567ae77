"""What programs ask: metrics, health of process and loop, cycles with their logs and files, ticks."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote_to_bytes

from starlette.responses import Response, StreamingResponse

from orchestration import __version__
from orchestration.cycles import artifacts, ledger, products
from orchestration.cycles.cycle import FINISHED, CycleNumber, CycleState, JobName
from orchestration.errors import KlorosError
from orchestration.pulse import document, health, metrics, records, signs
from orchestration.pulse.health import Judgement, Verdict
from orchestration.pulse.metrics import Values
from orchestration.pulse.server import files
from orchestration.pulse.server.documents import Document
from orchestration.pulse.server.following import Followed
from orchestration.pulse.server.problem import Problem
from orchestration.pulse.server.ways import LARGEST, Parameter, Way, one_of, whole
from orchestration.pulse.server.words import preferred
from orchestration.pulse.survey import survey
from orchestration.pulse.views import LONGEST_TEXT, MOST_LINES, CycleOrder, CycleQuery

if TYPE_CHECKING:
    from starlette.requests import Request

    from orchestration.pulse.server.following import Following
    from orchestration.pulse.server.looking import Looking
    from orchestration.pulse.server.traffic import Traffic
    from orchestration.settings import Settings
    from orchestration.store.port import Database

_Found = TypeVar("_Found")
TEXT: Final = "text/plain"
OPENMETRICS: Final = "application/openmetrics-text"
_METRICS: Final = {
    TEXT: "text/plain; version=0.0.4; charset=utf-8",
    OPENMETRICS: "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
EVENTS: Final = "text/event-stream"
_JSON: Final = ("application/json",)
_MOST_CYCLES: Final = 500
_UNREADABLE: Final = {503: "The store or the settings can't be read now."}
_ABSENT: Final = {404: "There is none of that number or name."}


class Api:
    """The answers for programs."""

    def __init__(self, looking: Looking, following: Following, traffic: Traffic) -> None:
        self._looking = looking
        self._following = following
        self._traffic = traffic
        self._started = time.monotonic()

    def ways(self) -> tuple[Way, ...]:
        """The table of all of them."""
        return (
            Way(
                "/metrics",
                "metrics",
                "The textfile's metrics as they are now, and those of this server; OpenMetrics if Accept prefers it.",
                self.metrics,
                (TEXT, OPENMETRICS),
                _UNREADABLE,
                strict=False,
            ),
            Way("/health", "process_health", "Whether this process works.", self.health, _JSON, {}, strict=False),
            Way(
                "/ready",
                "ready",
                "Whether the store can be read, is current, and the loop is at work.",
                self.ready,
                _JSON,
                {503: "It is not; `reasons` says why."},
                strict=False,
            ),
            Way(
                "/api/v1/health",
                "loop_health",
                "The whole of loop_health, see docs/reference/loop-health.md.",
                self.loop_health,
                _JSON,
                _UNREADABLE,
                (
                    Parameter(
                        "cycles",
                        "At most so many of the newest cycles.",
                        {"type": "integer", "minimum": 0, "maximum": _MOST_CYCLES, "default": 50},
                    ),
                ),
            ),
            Way(
                "/api/v1/cycles",
                "cycles",
                "Cycles, page by page: `next_cursor` leads to the next one.",
                self.cycles,
                _JSON,
                _UNREADABLE,
                CYCLE_PARAMETERS,
            ),
            Way(
                "/api/v1/cycles/{cycle:int}",
                "cycle",
                "Everything that is known of one cycle.",
                self.cycle,
                _JSON,
                {**_ABSENT, **_UNREADABLE},
            ),
            Way(
                "/api/v1/cycles/{cycle:int}/log",
                "cycle_log",
                "The output of a cycle's command, whole or a range; with follow as server-sent events until it ends.",
                self.log,
                (TEXT, EVENTS),
                {
                    **_ABSENT,
                    **_UNREADABLE,
                    204: "Nothing is left to follow: the cycle has ended, and the reader has all of it.",
                    206: "The range.",
                    416: "The range is beyond the end.",
                },
                _LOG_PARAMETERS,
            ),
            Way(
                "/api/v1/cycles/{cycle:int}/files/{path:path}",
                "cycle_file",
                "A file that a cycle left, as its manifest lists it.",
                self.file,
                ("application/octet-stream",),
                {**_ABSENT, **_UNREADABLE, 206: "The range.", 416: "The range is beyond the end."},
                (_RANGE,),
            ),
            Way(
                "/api/v1/ticks/{tick}",
                "tick",
                "One tick by its id or its number, with what it found and why it decided.",
                self.tick,
                _JSON,
                {**_ABSENT, **_UNREADABLE},
            ),
        )

    async def metrics(self, request: Request) -> Response:
        """Answer /metrics."""
        wanted = preferred(request.headers.get("accept", ""), (TEXT, OPENMETRICS)) or TEXT
        openmetrics = wanted == OPENMETRICS
        ours = await self._looking.at(
            lambda settings, db: metrics.exposition(self._judged(settings, db)[0], openmetrics=openmetrics)
        )
        text = ours + self._traffic.text(openmetrics=openmetrics)
        return Response(text.encode(), headers={"content-type": _METRICS[wanted], "vary": "accept"})

    async def health(self, _request: Request) -> Response:
        """Answer /health."""
        uptime = round(time.monotonic() - self._started, 3)
        return Document({"status": "ok", "version": __version__, "pid": os.getpid(), "uptime_seconds": uptime})

    async def ready(self, _request: Request) -> Response:
        """Answer /ready."""
        try:
            reasons = await self._looking.at(lambda settings, db: _not_at_work(self._judged(settings, db)[1]))
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

    async def cycles(self, request: Request) -> Response:
        """Answer /api/v1/cycles."""
        query = cycle_query(request)
        page = await self._looking.at(lambda _settings, db: records.cycle_page(db, query))
        return Document({"cycles": page.lines, "next_cursor": page.next_cursor, "total": page.total})

    async def cycle(self, request: Request) -> Response:
        """Answer /api/v1/cycles/N."""
        number = number_of(request)
        found = await self._looking.at(lambda settings, db: records.cycle_detail(settings, db, number))
        return Document(there(found, f"cycle {number}"))

    async def tick(self, request: Request) -> Response:
        """Answer /api/v1/ticks/N."""
        name = request.path_params["tick"]
        found = await self._looking.at(lambda _settings, db: records.tick_detail(db, name))
        return Document(there(found, "tick of that id or number"))

    async def log(self, request: Request) -> Response:
        """Answer /api/v1/cycles/N/log."""
        number = number_of(request)
        cycle, folder = await self._looking.at(lambda settings, db: (ledger.get(db, number), _folder(settings, number)))
        if cycle is None:
            raise _no_cycle(number)
        path = os.path.relpath(artifacts.output_path(folder), folder)
        offset = _offset(request, os.path.join(folder, path))
        if not _follows(request):
            return await files.respond(request, folder, path, media_type="text/plain; charset=utf-8", attachment=False)
        ended = cycle.state in FINISHED
        if ended and "last-event-id" in request.headers and offset == _size(os.path.join(folder, path)):
            return Response(status_code=204)
        self._following.admit()
        followed = Followed(number, folder, path, lambda: self._ended(number))
        headers = {"content-type": f"{EVENTS}; charset=utf-8", "x-accel-buffering": "no"}
        if request.method == "HEAD":
            return Response(headers=headers)
        return StreamingResponse(self._following.events(followed, offset), headers=headers)

    async def file(self, request: Request) -> Response:
        """Answer /api/v1/cycles/N/files/PATH."""
        number, asked = number_of(request), _path(request)
        folder, path = await self._looking.at(lambda settings, db: (_folder(settings, number), _listed(db, number, asked)))
        if path is None:
            hint = f"what it left is listed at /api/v1/cycles/{number}"
            raise Problem(404, f"cycle {number} left no such file, or has not ended", hint=hint)
        return await files.respond(request, folder, path, media_type="application/octet-stream", attachment=True)

    async def _ended(self, number: CycleNumber) -> str | None:
        cycle = await self._looking.at(lambda _settings, db: ledger.get(db, number))
        if cycle is None:
            return "unknown"
        return str(cycle.state) if cycle.state in FINISHED else None

    def _judged(self, settings: Settings, db: Database) -> tuple[Values, Judgement]:
        values = metrics.read(db)
        seen = signs.read(settings, db, values, self._looking.now())
        judgement = health.judge(seen, signs.since(db))
        metrics.note_health(values, seen, judgement)
        return values, judgement


def _not_at_work(judgement: Judgement) -> list[dict[str, str]]:
    """Name the causes for which nothing is decided or run."""
    return [
        {"reason": str(cause.condition), "detail": cause.evidence, "hint": cause.advice}
        for cause in judgement.causes
        if cause.verdict in (Verdict.STOPPED, Verdict.UNKNOWN)
    ]


_ENUMERATED: Final = {"type": "string"}
CYCLE_PARAMETERS: Final = (
    Parameter("job", "Only of this job.", {**_ENUMERATED, "enum": [str(one) for one in JobName]}),
    Parameter("state", "Only in this state.", {**_ENUMERATED, "enum": [str(one) for one in CycleState]}),
    Parameter(
        "text",
        "Only those with this text in number, reason, topic, intent or promotions.",
        {"type": "string", "maxLength": LONGEST_TEXT},
    ),
    Parameter("order", "How they are sorted.", {**_ENUMERATED, "enum": [str(one) for one in CycleOrder]}),
    Parameter("cursor", "`next_cursor` of the page before, of the same query.", {"type": "string"}),
    Parameter(
        "limit", "At most so many on a page.", {"type": "integer", "minimum": 1, "maximum": MOST_LINES, "default": 50}
    ),
)
_RANGE: Final = Parameter("range", "One range of bytes.", {"type": "string", "examples": ["bytes=0-1023"]}, "header")
_LOG_PARAMETERS: Final = (
    Parameter("follow", "1: as server-sent events.", {"type": "string", "enum": ["0", "1"]}),
    Parameter(
        "from",
        "With follow: from this byte on; a negative number is that far from the end.",
        {"type": "integer", "minimum": -LARGEST, "maximum": LARGEST, "default": 0},
    ),
    _RANGE,
    Parameter("last-event-id", "With follow: the byte offset to go on from.", {"type": "string"}, "header"),
)


def cycle_query(request: Request) -> CycleQuery:
    """Read which cycles are asked for.

    Raises:
        Problem: 400.
    """
    return CycleQuery(
        job=one_of(request, "job", JobName),
        state=one_of(request, "state", CycleState),
        text=request.query_params.get("text", ""),
        order=one_of(request, "order", CycleOrder, CycleOrder.NEWEST),
        cursor=request.query_params.get("cursor", ""),
        limit=whole(request, "limit", 50, least=1, most=MOST_LINES),
    )


def number_of(request: Request) -> CycleNumber:
    """Read the cycle's number from the address.

    Raises:
        Problem: 404, none can have it.
    """
    number = int(request.path_params["cycle"])
    if number > LARGEST:
        raise _no_cycle(number)
    return CycleNumber(number)


def _no_cycle(number: int) -> Problem:
    return Problem(404, f"there is no cycle {str(number)[:20]}", hint="those there are: /api/v1/cycles")


def there(found: _Found | None, name: str) -> _Found:
    """Return what was found.

    Raises:
        Problem: 404, it was not.
    """
    if found is None:
        raise Problem(404, f"there is no {name}", hint="cycles are listed at /api/v1/cycles, ticks by klorosctl history")
    return found


def _folder(settings: Settings, number: CycleNumber) -> str:
    return artifacts.cycle_dir(settings.cycles_dir, number)


def _listed(db: Database, number: CycleNumber, path: str) -> str | None:
    """Return the path of a regular file that the manifest lists, given as it is or as pages and documents show it."""
    left = products.get(db, number).left
    paths = [] if left is None else [one.path for one in left.files if one.size is not None]
    return path if path in paths else next((one for one in paths if _shown(one) == path), None)


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _path(request: Request) -> str:
    """Read the path from the address as it was sent, because names may be no UTF-8."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    sent = raw.partition(b"?")[0].split(b"/files/", 1)[1]
    return unquote_to_bytes(sent).decode("utf-8", "surrogateescape")


def _follows(request: Request) -> bool:
    asked = request.query_params.get("follow", "")
    if asked not in ("", "0", "1"):
        raise Problem(400, "follow is 0 or 1", hint="follow=1")
    return asked == "1" or (not asked and preferred(request.headers.get("accept", ""), (TEXT, EVENTS)) == EVENTS)


def _offset(request: Request, file: str) -> int:
    """Read where to go on: the header of a reader that comes again counts before the parameter of its address."""
    offset = whole(request, "from", 0, least=-LARGEST, most=LARGEST)
    text = request.headers.get("last-event-id", "").strip()
    if text.isascii() and text.isdecimal() and int(text[:20]) <= LARGEST:
        return int(text)
    return offset if offset >= 0 else max(0, _size(file) + offset)


def _size(file: str) -> int:
    try:
        return os.stat(file, follow_symlinks=False).st_size
    except OSError:
        return 0
