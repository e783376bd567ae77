"""Every page as text: a document of `loop_health` or `views` in, whole HTML out.

Owns how templates are loaded and what they may use; refuses to know where a document came from and where the page goes.
All text is escaped (autoescape) and made inert (`wording.inert`); a name that a template misspells is an error, not a blank.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from orchestration.cycles import artifacts
from orchestration.errors import KlorosError
from orchestration.host import zones
from orchestration.pulse.dashboard import charts, hosts, wording
from orchestration.pulse.dashboard.place import SCRIPT, STYLE, Place, asset, csp
from orchestration.pulse.dashboard.wording import Clock
from orchestration.pulse.loop_health import Beat, CycleLine, LoopHealth

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from jinja2 import Environment

    from orchestration.pulse.views import CalendarView, CycleDetail, CyclePage, IntentsView, PromotionsView, TickDetail

FILE_CYCLES = 18
"""Cycles that the file lists; the served page has them all, on pages of their own."""
SERVED_CYCLES = 20
GAPS = 12
"""Gaps that are explained one by one; the older ones are counted."""
TAIL_LINES, TAIL_CHARACTERS = 12, 1600
RESULTS = 8
"""Of each side of a verdict that are shown, the newest."""
PARAMETERS = 20
"""Of a baseline, that a page lists."""
THREADS = 10
"""Threads of agents that are told one by one, by a server; a file has room for a fifth of it."""
THREAD_SEATS = 4
"""Participants that are told one by one, of one thread and of those behind; in a file half as many."""
HELD = 3
"""Entries of escrow that are told one by one."""
CHANGES = 3
"""Of each of them that are."""
TREND = 100
"""Cycles of a trend: as many points as can be told apart."""
SERIES = 6
"""Telemetry series that lists have columns for: those that most cycles have."""


def overview(health: LoopHealth, place: Place) -> str:
    """Return the first page."""
    clock = _clock(health.time_zone, health.generated_at)
    listed = health.cycles[: SERVED_CYCLES if place.served else FILE_CYCLES]
    series = _series(health.cycles)
    timeline = charts.timeline((*health.active, *health.cycles), health.generated_at, clock.zone)
    beats = health.heartbeat and charts.beats(health.heartbeat)
    return _render(
        "overview.html",
        place,
        clock,
        host=health.host,
        health=health,
        scope=hosts.shown(health.scope, served=place.served),
        heartbeat=health.heartbeat and charts.heartbeat(health.heartbeat, clock.zone),
        gaps=charts.merged(health.heartbeat.gaps) if health.heartbeat else (),
        shown_gaps=GAPS,
        gap_beats=_gap_beats(health),
        whole=health.heartbeat is not None and all(one.beat is not Beat.BEFORE for one in health.heartbeat.stretches),
        beat_words=[wording.BEATS[Beat(word)] for word in beats.words] if beats else (),
        beat_marks=beats.runs if beats else "",
        timeline=timeline,
        timeline_words=[_word(word) for word in timeline.marks.words],
        weeks=charts.calendar(health.phase_dates, health.generated_at.astimezone(clock.zone).date()),
        cycles=listed,
        series=series,
        trend_cycles=min(len(health.cycles), TREND),
        trends=[(name, _trend(health, name)) for name in series],
    )


def cycles(page: CyclePage, place: Place, *, now: datetime) -> str:
    """Return one page of the list of cycles, with the form that asks for others."""
    query = page.query
    asked = {
        "job": query.job,
        "state": query.state,
        "text": query.text,
        "order": query.order,
        "limit": query.limit,
    }
    return _beside(
        "cycles.html",
        place,
        now,
        page=page,
        series=_series(page.lines),
        first=place.to("cycles", **asked),
        next=place.to("cycles", **asked, cursor=page.next_cursor),
    )


def cycle(detail: CycleDetail, place: Place, *, now: datetime) -> str:
    """Return all about one cycle."""
    curves = [
        (one, charts.curve([(float(p.line), p.value) for p in one.points], width=400, height=100))
        for one in detail.telemetry
    ]
    command_line = shlex.join(detail.command)
    output = artifacts.output_path("")
    return _beside("cycle.html", place, now, detail=detail, curves=curves, command_line=command_line, output=output)


def tick(detail: TickDetail, place: Place, *, now: datetime) -> str:
    """Return what one tick found and decided, as it was then."""
    return _beside("tick.html", place, now, detail=detail)


def promotions(view: PromotionsView, place: Place, *, now: datetime) -> str:
    """Return the promotions that wait and those answered last."""
    return _beside("promotions.html", place, now, view=view)


def intents(view: IntentsView, place: Place, *, now: datetime) -> str:
    """Return the intents that wait and those decided last."""
    return _beside("intents.html", place, now, view=view)


def calendar(view: CalendarView, place: Place, *, now: datetime) -> str:
    """Return PHASE by date, with each window."""
    today = now.astimezone(_clock(view.time_zone, now).zone).date()
    past = [day.outcome for day in view.days if day.outcome is not None]
    dates = [day.window.date for day in view.days if day.window.date <= today]
    days = (today - min(dates)).days + 1 if dates else 0
    weeks = charts.calendar(past, today, days=days) if days else ()
    return _beside("calendar.html", replace(place, time_zone=view.time_zone), now, view=view, weeks=weeks)


def problem(status: int, title: str, what_to_do: str, place: Place, *, now: datetime) -> str:
    """Return the page that says what went wrong (an HTTP status; 0: none) and what to do."""
    return _beside("problem.html", place, now, status=status, title=title, what_to_do=what_to_do)


def _beside(template: str, place: Place, now: datetime, **values: object) -> str:
    """Render a page beside the first one, whose document names neither host nor zone."""
    return _render(template, place, _clock(place.time_zone, now), host=place.host, **values)


def _series(lines: Iterable[CycleLine]) -> list[str]:
    counts: dict[str, int] = {}
    for line in lines:
        for name in line.series:
            counts[name] = counts.get(name, 0) + 1
    return sorted(sorted(counts, key=lambda name: (-counts[name], name))[:SERIES])


def _word(word: str) -> str:
    """Return how a job or a state is called, without the sign that parts words."""
    return wording.excerpt(wording.JOBS.get(word) or wording.STATES.get(word, word), 40).replace("|", "¦")


def _gap_beats(health: LoopHealth) -> list[Beat]:
    """Return what the gaps show, once each, for the legend."""
    found = {gap.beat for gap in health.heartbeat.gaps} if health.heartbeat else set()
    return [beat for beat in Beat if beat in found]


def _trend(health: LoopHealth, name: str) -> charts.Line | None:
    return charts.line([line.series.get(name) for line in reversed(health.cycles[:TREND])])


def _clock(time_zone: str, now: datetime) -> Clock:
    zones.find(time_zone)
    return Clock(ZoneInfo(time_zone), now)


def _render(template: str, place: Place, clock: Clock, **values: object) -> str:
    page = _environment().get_template(template)
    here = {"overview.html": "/", "problem.html": ""}.get(template, f"/{template.removesuffix('.html')}")
    style, script = (None, None) if place.served else (_markup(asset(STYLE)), _markup(asset(SCRIPT)))
    return page.render(place=place, clock=clock, style=style, script=script, csp=csp(place), here=here, **values)


def _markup(ours: str) -> str:
    """Mark our own style or script as markup, which escaping would break."""
    from markupsafe import Markup

    return Markup(ours)  # noqa: S704  # no text from outside is in it


@cache
def _environment() -> Environment:
    """Load the templates. Raises: KlorosError, when jinja2 is missing."""
    try:
        import jinja2
    except ImportError as error:
        raise KlorosError(
            "the page needs the package jinja2, which is not installed",
            hint="install the extra pulse: pip install 'kloros-orchestration[pulse]' (Debian: python3-jinja2)",
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=wording.inert,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(_globals())
    environment.filters.update(
        span=wording.span,
        bytes=wording.size,
        amount=wording.amount,
        figure=wording.figure,
        percent=wording.percent,
        gain=wording.gain,
        shift=wording.shift,
        tail=wording.tail,
        excerpt=wording.excerpt,
        inert=wording.inert,
        quoted=shlex.quote,
    )
    return environment


def _globals() -> dict[str, Any]:
    return {
        "verdicts": wording.VERDICTS,
        "meanings": wording.MEANINGS,
        "conditions": wording.CONDITIONS,
        "beats": wording.BEATS,
        "states": wording.STATES,
        "jobs": wording.JOBS,
        "decisions": wording.DECISIONS,
        "causes": wording.CAUSES,
        "counted": wording.counted,
        "heartbeat_height": charts.HEARTBEAT_HEIGHT,
        "seconds": lambda seconds: timedelta(seconds=seconds),
        "TAIL_LINES": TAIL_LINES,
        "PARAMETERS": PARAMETERS,
        "HELD": HELD,
        "CHANGES": CHANGES,
        "RESULTS": RESULTS,
        "TAIL_CHARACTERS": TAIL_CHARACTERS,
        "WAKE_STAGES": wording.WAKE_STAGES,
        "THREADS": THREADS,
        "THREAD_SEATS": THREAD_SEATS,
    }
