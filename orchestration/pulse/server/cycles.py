"""What programs ask of cycles: lists, one with all that is known of it, its log, its files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from starlette.responses import Response, StreamingResponse

from orchestration.cycles import artifacts, ledger, products
from orchestration.cycles.cycle import FINISHED, CycleNumber, CycleState, JobName
from orchestration.pulse import records
from orchestration.pulse.server import files
from orchestration.pulse.server.documents import Document
from orchestration.pulse.server.following import Followed
from orchestration.pulse.server.problem import Problem, there
from orchestration.pulse.server.ways import ABSENT, JSON, LARGEST, TEXT, UNREADABLE, Parameter, Way, one_of, whole
from orchestration.pulse.server.words import preferred
from orchestration.pulse.views import LONGEST_TEXT, MOST_LINES, CycleOrder, CycleQuery

if TYPE_CHECKING:
    from starlette.requests import Request

    from orchestration.pulse.server.following import Following
    from orchestration.pulse.server.looking import Looking
    from orchestration.settings import Settings
    from orchestration.store.port import Database

EVENTS: Final = "text/event-stream"
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


class Cycles:
    """The answers about cycles."""

    def __init__(self, looking: Looking, following: Following) -> None:
        self._looking = looking
        self._following = following

    def ways(self) -> tuple[Way, ...]:
        """The table of all of them."""
        return (
            Way(
                "/api/v1/cycles",
                "cycles",
                "Cycles, page by page: `next_cursor` leads to the next one.",
                self.cycles,
                JSON,
                UNREADABLE,
                CYCLE_PARAMETERS,
            ),
            Way(
                "/api/v1/cycles/{cycle:int}",
                "cycle",
                "Everything that is known of one cycle.",
                self.cycle,
                JSON,
                {**ABSENT, **UNREADABLE},
            ),
            Way(
                "/api/v1/cycles/{cycle:int}/log",
                "cycle_log",
                "The output of a cycle's command, whole or a range; with follow as server-sent events until it ends.",
                self.log,
                (TEXT, EVENTS),
                {
                    **ABSENT,
                    **UNREADABLE,
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
                {**ABSENT, **UNREADABLE, 206: "The range.", 416: "The range is beyond the end."},
                (_RANGE,),
            ),
        )

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
