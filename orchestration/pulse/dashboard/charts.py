"""Charts as geometry: what the SVG macros in `templates/charts.html` draw, worked out here. Pure.

A day is drawn in segments of six hours, which stand beside each other on a wide screen and below each other on a phone, so
that a minute never gets narrower than a pixel or so. Within a segment x is in minutes; the drawing is stretched to its
place. What wants a person's eye is tall, what is as usual is low: colour is never the only difference. Equal marks are one
path, so that a chart's size does not grow with the number of colours, titles or attributes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple

from orchestration.pulse.loop_health import Beat, CycleLine, Heartbeat, PhaseLine, Stretch

SEGMENT = 360
"""Minutes of one segment."""
DAY = 1440
LABELS_EVERY = 2  # hours
_EDGE = 0.12  # of a segment's width at its end, where a label would meet the next segment's


class Label(NamedTuple):
    """A mark on a time axis; x in percent of the segment's width."""

    x: float
    text: str  # empty: a line only


class Segment(NamedTuple):
    """Some hours of a chart; paths by what they show, in user units of one minute by one pixel."""

    start: datetime
    minutes: int
    paths: tuple[tuple[str, str], ...]  # class, `d`
    labels: tuple[Label, ...]


_TALL, _MIDDLE, _LOW = 24, 16, 7
HEARTBEAT_HEIGHT = _TALL
_HEIGHTS: Mapping[Beat, int] = {
    Beat.PHASE: _MIDDLE,
    Beat.DREAM_CYCLE: _MIDDLE,
    Beat.REFLECTION: _MIDDLE,
    Beat.NOOP: _LOW,
    Beat.FAILED: _TALL,
    Beat.LOCK_HELD: _TALL,
    Beat.HALTED: _TALL,
    Beat.DISABLED: _TALL,
    Beat.HOST_DOWN: _TALL,
    Beat.UNKNOWN: _TALL,
}


def heartbeat(beats: Heartbeat, zone: tzinfo) -> tuple[Segment, ...]:
    """Lay out the ticks of a span by minute."""
    return tuple(_heartbeat_segment(beats, number, zone) for number in range(0, beats.minutes, SEGMENT))


def _heartbeat_segment(beats: Heartbeat, first: int, zone: tzinfo) -> Segment:
    last = min(first + SEGMENT, beats.minutes)
    drawn: dict[Beat, list[str]] = {}
    for stretch in beats.stretches:
        begins = round((stretch.start - beats.start) / timedelta(minutes=1))
        left, right = max(begins, first), min(begins + stretch.minutes, last)
        if left < right and stretch.beat in _HEIGHTS:
            height = _HEIGHTS[stretch.beat]
            drawn.setdefault(stretch.beat, []).append(_bar(left - first, right - left, _TALL - height, height))
    start = beats.start + timedelta(minutes=first)
    # Low ones first: an event of one minute is drawn over its neighbours' edges, not under them.
    order = sorted(drawn, key=lambda beat: _HEIGHTS[beat])
    paths = tuple((beat.value, "".join(drawn[beat])) for beat in order)
    return Segment(start, last - first, paths, _hours(start, last - first, zone))


class Marks(NamedTuple):
    """What a chart shows, for scripts that tell it of the place that is pointed at."""

    words: tuple[str, ...]
    runs: str  # `0*120 1*1`: minutes with the same word, oldest first; or `1285 612 7 0 1`: see `timeline`


def beats(beats: Heartbeat) -> Marks:
    """Return the minutes as runs of the same beat."""
    seen: list[Beat] = []
    runs: list[str] = []
    for stretch in beats.stretches:
        if stretch.beat not in seen:
            seen.append(stretch.beat)
        runs.append(f"{seen.index(stretch.beat)}*{stretch.minutes}")
    return Marks(tuple(seen), " ".join(runs))


LANE = 34
"""Height of one job's lane; its name stands in the upper part."""
_BAR_TOP, _BAR_BOTTOM = 14, 32
_MOST_LANES = 6
_MOST_WORDS = 30
_NARROWEST = 1.2  # minutes: what is shorter would not be seen


class Lane(NamedTuple):
    """One job of the timeline."""

    job: str
    top: int
    counts: tuple[tuple[str, int], ...]  # state → number, most frequent first


class Timeline(NamedTuple):
    """The cycles of a span, one lane for each job."""

    lanes: tuple[Lane, ...]
    height: int
    segments: tuple[Segment, ...]
    marks: Marks  # of each bar: cycle, seconds from the start of the span, seconds it took, job and state
    from_cycle: int | None  # earlier ones of the span were not among those given; None: all of them are there


def timeline(cycles: Iterable[CycleLine], now: datetime, zone: tzinfo, *, minutes: int = DAY) -> Timeline:
    """Lay out the cycles that ran within the last `minutes`."""
    end = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    start = end - timedelta(minutes=minutes)
    listed = tuple(cycles)
    shown = [(line, *when) for line in listed if (when := _ran(line, now)) is not None and when[1] >= start]
    jobs = sorted({str(line.job) for line, _, _ in shown}, key=_lane_order)
    # Folders from elsewhere may name any number of jobs: those beyond share the last lane.
    tops = {job: min(number, _MOST_LANES - 1) * LANE for number, job in enumerate(jobs)}
    segments = tuple(
        _timeline_segment(shown, tops, start + timedelta(minutes=first), min(SEGMENT, minutes - first), zone)
        for first in range(0, minutes, SEGMENT)
    )
    lanes = tuple(
        Lane(
            job if len(jobs) <= _MOST_LANES or top < (_MOST_LANES - 1) * LANE else "other jobs",
            top,
            _states(line for line, _, _ in shown if tops[str(line.job)] == top),
        )
        for job, top in tuple(tops.items())[:_MOST_LANES]
    )
    oldest = min((line.cycle for line in listed), default=0)
    missing = oldest if oldest > 1 and all(line.started_at is None or line.started_at > start for line in listed) else None
    return Timeline(lanes, len(lanes) * LANE, segments, _bars(shown, start), missing)


def _bars(shown: Sequence[tuple[CycleLine, datetime, datetime]], start: datetime) -> Marks:
    words: list[str] = []
    bars: list[str] = []
    for line, began, ended in shown:
        for word in (str(line.job), str(line.state)):
            if word not in words and len(words) < _MOST_WORDS:
                words.append(word)
        if str(line.job) in words and str(line.state) in words:
            at, lasted = round((began - start).total_seconds()), round((ended - began).total_seconds())
            named = f"{words.index(str(line.job))} {words.index(str(line.state))}"
            bars.append(f"{line.cycle} {at} {lasted} {named}")
    return Marks(tuple(words), ",".join(bars))


def _ran(line: CycleLine, now: datetime) -> tuple[datetime, datetime] | None:
    if line.started_at is None:
        return None
    if line.seconds is not None:
        return line.started_at, line.started_at + timedelta(seconds=line.seconds)
    return line.started_at, line.recorded_at or now


def _lane_order(job: str) -> tuple[int, str]:
    known = ("phase", "dream", "loop", "reflection", "wake")
    return (known.index(job) if job in known else len(known), job)


def _states(lines: Iterable[CycleLine]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for line in lines:
        counts[str(line.state)] = counts.get(str(line.state), 0) + 1
    return tuple(sorted(counts.items(), key=lambda item: -item[1]))


def _timeline_segment(
    shown: Sequence[tuple[CycleLine, datetime, datetime]],
    tops: Mapping[str, int],
    start: datetime,
    minutes: int,
    zone: tzinfo,
) -> Segment:
    drawn: dict[str, list[str]] = {}
    for line, began, ended in shown:
        left = max((began - start) / timedelta(minutes=1), 0)
        right = min((ended - start) / timedelta(minutes=1), minutes)
        if left > minutes or right < 0 or left > right:
            continue
        bad = str(line.state) not in ("succeeded", "running", "cancelled")
        top = tops[str(line.job)] + (_BAR_TOP if bad else _BAR_TOP + 7)
        height = _BAR_BOTTOM - (_BAR_TOP if bad else _BAR_TOP + 7)
        width = max(right - left, _NARROWEST)
        drawn.setdefault(str(line.state), []).append(_bar(min(left, minutes - width), width, top, height))
    paths = tuple((state, "".join(drawn[state])) for state in sorted(drawn, key=_severity))
    return Segment(start, minutes, paths, _hours(start, minutes, zone))


def _severity(state: str) -> int:
    order = ("cancelled", "succeeded", "running", "timed_out", "lost", "failed")
    return order.index(state) if state in order else 0


def _hours(start: datetime, minutes: int, zone: tzinfo) -> tuple[Label, ...]:
    """Return the full hours of the zone; where a local day begins, its date."""
    labels = []
    at = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    # A zone may be off by half an hour from UTC: its full hours then lie between those of UTC.
    at += timedelta(minutes=(60 - at.astimezone(zone).minute) % 60)
    while (x := (at - start) / timedelta(minutes=minutes)) < 1:
        local = at.astimezone(zone)
        if x >= 0:
            midnight = local.hour == 0
            named = f"{local:%a} {local.day}" if midnight else f"{local:%H:%M}"
            text = named if local.hour % LABELS_EVERY == 0 and x <= 1 - _EDGE else ""
            labels.append(Label(round(x * 100, 2), text))
        at += timedelta(hours=1)
    return tuple(labels)


def _bar(x: float, width: float, y: float, height: float) -> str:
    return f"M{_short(x)} {_short(y)}h{_short(width)}v{_short(height)}h{_short(-width)}z"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class Line(NamedTuple):
    """A line chart; a missing value breaks the line."""

    path: str
    dots: tuple[tuple[float, float], ...]  # values without a neighbour, which a line would not show
    low: float
    high: float
    last: float
    width: float
    height: float


def line(values: Sequence[float | None], *, width: float = 100, height: float = 30) -> Line | None:
    """Draw values at equal distances; None when there are none. Values that are no finite number are missing."""
    return curve([(float(number), value) for number, value in enumerate(values)], width=width, height=height)


def curve(points: Sequence[tuple[float, float | None]], *, width: float = 100, height: float = 30) -> Line | None:
    """Draw values over x; None when there are none."""
    known = [value for _, value in points if value is not None and math.isfinite(value)]
    if not known:
        return None
    low, high = min(known), max(known)
    first, last = points[0][0], points[-1][0]
    x_scale = width / (last - first) if last > first else 0
    span = high - low
    path: list[str] = []
    dots: list[tuple[float, float]] = []
    run: list[tuple[float, float]] = []
    for x, value in [*points, (last, None)]:
        if value is not None and math.isfinite(value):
            y = height - 1 - (value - low) / span * (height - 2) if 0 < span < math.inf else height / 2
            run.append((round((x - first) * x_scale, 1), round(y, 1)))
            continue
        if len(run) == 1:
            dots += run
        elif run:
            path.append("M" + "L".join(f"{_short(px)} {_short(py)}" for px, py in run))
        run = []
    return Line("".join(path), tuple(dots), low, high, known[-1], width, height)


class Day(NamedTuple):
    """One cell of the calendar."""

    date: date
    line: PhaseLine | None  # None: nothing is recorded of it
    today: bool
    before: bool  # before the span that is shown


def calendar(lines: Iterable[PhaseLine], today: date, *, days: int = 30) -> tuple[tuple[Day, ...], ...]:
    """Return weeks from Monday to Sunday that hold the last `days` dates, `today` included; later dates are left out."""
    known = {one.date: one for one in lines}
    first = today - timedelta(days=days - 1)
    monday = first - timedelta(days=first.weekday())
    shown = [monday + timedelta(days=number) for number in range((today - monday).days + 1)]
    cells = [Day(one, known.get(one), one == today, one < first) for one in shown]
    return tuple(tuple(cells[number : number + 7]) for number in range(0, len(cells), 7))


def merged(gaps: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """Join gaps that follow each other with the same explanation, newest first."""
    joined: list[Stretch] = []
    for gap in gaps:
        before = joined[-1] if joined else None
        follows = before is not None and before.start + timedelta(minutes=before.minutes) == gap.start
        if before is not None and follows and (before.beat, before.evidence) == (gap.beat, gap.evidence):
            joined[-1] = Stretch(
                beat=gap.beat, start=before.start, minutes=before.minutes + gap.minutes, evidence=gap.evidence
            )
        else:
            joined.append(gap)
    return tuple(reversed(joined))
