"""The page's charts: each minute and each cycle stands where it belongs, and what nobody could see is not drawn."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestration.cycles.cycle import CycleState
from orchestration.pulse.dashboard import charts
from orchestration.pulse.loop_health import Beat, CycleLine, Heartbeat, PhaseLine, Stretch

START = datetime(2026, 11, 20, 4, 47, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
BAR = re.compile(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h-([\d.]+)z")


def stretches(*found: tuple[Beat, int]) -> tuple[Stretch, ...]:
    at, made = START, []
    for beat, minutes in found:
        made.append(Stretch(beat=beat, start=at, minutes=minutes, evidence=f"why {beat}"))
        at += timedelta(minutes=minutes)
    return tuple(made)


def heartbeat(*found: tuple[Beat, int]) -> Heartbeat:
    return Heartbeat(start=START, minutes=sum(minutes for _, minutes in found), stretches=stretches(*found))


def bars(path: str) -> list[tuple[float, ...]]:
    """Return x, y, width and height of each bar, and see that the path holds nothing else."""
    assert BAR.sub("", path) == ""
    return [tuple(map(float, found[:4])) for found in BAR.findall(path)]


def line(number: int, began: datetime, seconds: float | None, state: str = "succeeded", job: str = "dream") -> CycleLine:
    return CycleLine(
        cycle=number,
        job=job,
        state=CycleState(state),
        cause=None,
        phase_date=None,
        queued_at=began,
        started_at=began,
        recorded_at=None,
        seconds=seconds,
        timeout_seconds=None,
        reason="",
        series={},
        damaged_lines=0,
    )


beats = st.lists(st.tuples(st.sampled_from(list(Beat)), st.integers(1, 400)), min_size=1, max_size=60)


@given(beats)
def test_each_minute_is_drawn_once_as_what_it_was(found: list[tuple[Beat, int]]) -> None:
    wanted = [beat for beat, minutes in found for _ in range(minutes)]
    drawn: list[Beat] = [Beat.BEFORE] * len(wanted)
    for number, segment in enumerate(charts.heartbeat(heartbeat(*found), NEW_YORK)):
        assert segment.start == START + timedelta(minutes=number * charts.SEGMENT)
        for beat, path in segment.paths:
            for x, y, width, height in bars(path):
                assert x >= 0
                assert x + width <= segment.minutes
                assert y + height == charts.HEARTBEAT_HEIGHT
                for minute in range(round(x), round(x + width)):
                    at = number * charts.SEGMENT + minute
                    assert drawn[at] is Beat.BEFORE, "two marks on one minute"
                    drawn[at] = Beat(beat)
    assert drawn == wanted


def test_a_gap_is_taller_than_a_quiet_minute() -> None:
    (segment,) = charts.heartbeat(heartbeat((Beat.NOOP, 10), (Beat.UNKNOWN, 5), (Beat.NOOP, 10)), NEW_YORK)
    heights = {beat: bars(path)[0][3] for beat, path in segment.paths}
    assert heights["unknown"] > heights["noop"]


def test_the_worst_day_stays_small() -> None:
    found = [(Beat.LOCK_HELD if minute % 2 else Beat.NOOP, 1) for minute in range(1440)]
    size = sum(len(path) for segment in charts.heartbeat(heartbeat(*found), NEW_YORK) for _, path in segment.paths)
    assert size < 35_000


def test_hours_are_those_of_the_zone_and_midnight_has_its_date() -> None:
    segments = charts.heartbeat(heartbeat((Beat.NOOP, 1440)), NEW_YORK)
    named = [mark for mark in segments[0].labels if mark.text]
    assert [mark.text for mark in named] == ["Fri 20", "02:00", "04:00"]
    assert named[0].x == pytest.approx(13 / 360 * 100, abs=0.01)  # 04:47 UTC is 23:47 there
    assert sum(len(segment.labels) for segment in segments) == 24


@pytest.mark.parametrize(("zone", "minutes"), [("Asia/Kolkata", 30), ("Asia/Kathmandu", 15)])
def test_hours_of_a_zone_that_is_off_by_part_of_one(zone: str, minutes: int) -> None:
    (segment, *_) = charts.heartbeat(heartbeat((Beat.NOOP, 1440)), ZoneInfo(zone))
    first = segment.start + timedelta(minutes=segment.labels[0].x / 100 * segment.minutes)
    assert round(first.timestamp() / 60) % 60 == minutes


def test_a_doubled_hour_is_there_twice() -> None:
    start = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)  # New York goes back at 06:00 UTC
    beat = Heartbeat(start=start, minutes=360, stretches=(Stretch(beat=Beat.NOOP, start=start, minutes=360, evidence=""),))
    (segment,) = charts.heartbeat(beat, NEW_YORK)
    assert [mark.text for mark in segment.labels] == ["Sun 1", "", "", "02:00", "", "04:00"]


def test_cycles_stand_in_the_lane_of_their_job_where_they_ran() -> None:
    now = START + timedelta(days=1)
    early = line(1, now - timedelta(hours=23), 3600)
    running = line(3, now - timedelta(minutes=30), None, "running", job="phase")
    old = line(0, now - timedelta(hours=30), 60)
    drawn = charts.timeline((early, running, old), now, NEW_YORK)
    assert [lane.job for lane in drawn.lanes] == ["phase", "dream"]
    assert drawn.from_cycle is None
    ((_, first),) = drawn.segments[0].paths
    assert bars(first) == [(59, charts.LANE + 21, 60, 11)]
    ((state, last),) = drawn.segments[-1].paths
    assert state == "running"
    ((x, _, width, _),) = bars(last)
    assert x + width == pytest.approx(359, abs=0.1)


def test_a_moment_is_wide_enough_to_be_seen() -> None:
    now = START + timedelta(days=1)
    drawn = charts.timeline((line(1, now - timedelta(seconds=1), 0.1, "failed"),), now, UTC)
    ((_, path),) = drawn.segments[-1].paths
    assert bars(path)[0][2] >= 1


def test_it_says_from_where_on_cycles_were_given() -> None:
    now = START + timedelta(days=1)
    assert charts.timeline((line(70, now - timedelta(hours=2), 60),), now, UTC).from_cycle == 70


def test_any_number_of_jobs_shares_a_few_lanes() -> None:
    now = START + timedelta(days=1)
    lines = [line(number, now - timedelta(hours=1), 60, job=f"job {number:03}") for number in range(200)]
    drawn = charts.timeline(lines, now, UTC)
    assert len(drawn.lanes) == 6
    assert drawn.lanes[-1].job == "other jobs"
    assert sum(number for lane in drawn.lanes for _, number in lane.counts) == 200


numbers = st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), max_size=40)


@given(numbers)
@example([0.0, 2.2250738585072014e-308])
@example([-1.7e308, 1.7e308])
def test_a_line_has_only_numbers_and_stays_in_its_box(values: list[float | None]) -> None:
    drawn = charts.line(values, width=100, height=30)
    known = [value for value in values if value is not None and value - value == 0]
    if drawn is None:
        assert known == []
        return
    assert (drawn.low, drawn.high, drawn.last) == (min(known), max(known), known[-1])
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", drawn.path) if pair]
    assert len(points) + len(drawn.dots) == len(known)
    for x, y in (*points, *drawn.dots):
        assert 0 <= x <= 100
        assert 0 <= y <= 30


def test_a_missing_value_breaks_the_line() -> None:
    drawn = charts.line([1, 2, None, 2, 1, None, 5])
    assert drawn is not None
    assert drawn.path.count("M") == 2
    assert len(drawn.dots) == 1


def test_the_calendar_has_whole_weeks_and_ends_today() -> None:
    day = date(2026, 11, 17)
    known = PhaseLine(date=day, result="failed", reason="", evidence="", cycle=1, opens=START, closes=START)
    weeks = charts.calendar((known,), date(2026, 11, 20))
    cells = [cell for week in weeks for cell in week]
    assert all(week[0].date.weekday() == 0 for week in weeks)
    assert len([cell for cell in cells if not cell.before]) == 30
    assert (cells[-1].date, cells[-1].today) == (date(2026, 11, 20), True)
    assert [cell.date for cell in cells if cell.line] == [day]


def test_gaps_that_follow_each_other_with_one_explanation_are_one() -> None:
    first, second = stretches((Beat.UNKNOWN, 3), (Beat.UNKNOWN, 4))
    apart = Stretch(beat=Beat.UNKNOWN, start=START + timedelta(hours=3), minutes=1, evidence=first.evidence)
    assert [gap.minutes for gap in charts.merged((first, second, apart))] == [1, 7]
