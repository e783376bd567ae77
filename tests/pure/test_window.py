"""The window: what it promises on any day, in any zone, and on the days that are not like others."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import Malformed
from orchestration.phase.window import Interval, Window

DAY = timedelta(days=1)
ZONES = sorted(available_timezones() - {"localtime"})

times = st.times().map(lambda t: t.replace(second=0, microsecond=0))
hours = st.tuples(times, times).filter(lambda pair: pair[0] != pair[1])
zones = st.sampled_from(ZONES)
windows = st.builds(lambda pair, zone: Window(pair[0], pair[1], zone), hours, zones)
dates = st.dates(date(1860, 1, 1), date(2120, 1, 1))
instants = st.datetimes(datetime(1860, 1, 1), datetime(2120, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


def window(hours: str, zone: str) -> Window:
    """Read "03:00-07:00"."""
    opens, closes = hours.split("-")
    return Window(time.fromisoformat(opens), time.fromisoformat(closes), zone)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "zone", "day", "opens", "closes"),
    [
        # ordinary days, summer and winter
        ("03:00-07:00", "America/New_York", "2026-07-08", "2026-07-08T07:00", "2026-07-08T11:00"),
        ("03:00-07:00", "America/New_York", "2026-01-08", "2026-01-08T08:00", "2026-01-08T12:00"),
        ("22:00-02:00", "Europe/Berlin", "2026-06-01", "2026-06-01T20:00", "2026-06-02T00:00"),
        # a gap: 02:00 to 03:00 is missing
        ("03:00-07:00", "America/New_York", "2026-03-08", "2026-03-08T07:00", "2026-03-08T11:00"),
        ("00:00-04:00", "America/New_York", "2026-03-08", "2026-03-08T05:00", "2026-03-08T08:00"),
        ("01:30-02:30", "America/New_York", "2026-03-08", "2026-03-08T06:30", "2026-03-08T07:30"),
        ("02:30-04:30", "America/New_York", "2026-03-08", "2026-03-08T07:30", "2026-03-08T08:30"),
        ("02:15-02:45", "America/New_York", "2026-03-08", "2026-03-08T07:15", "2026-03-08T07:45"),
        ("02:00-03:00", "Australia/Lord_Howe", "2026-10-04", "2026-10-03T15:30", "2026-10-03T16:00"),  # half an hour
        ("01:30-02:30", "Antarctica/Troll", "2026-03-29", "2026-03-29T01:30", "2026-03-29T02:30"),  # two hours
        ("00:00-04:00", "America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00", "2018-11-04T06:00"),  # at midnight
        # a fold: 01:00 to 02:00 happens twice
        ("01:30-02:30", "America/New_York", "2026-11-01", "2026-11-01T05:30", "2026-11-01T07:30"),
        ("00:30-01:30", "America/New_York", "2026-11-01", "2026-11-01T04:30", "2026-11-01T06:30"),
        ("01:15-01:45", "America/New_York", "2026-11-01", "2026-11-01T05:15", "2026-11-01T06:45"),
        ("03:00-07:00", "America/New_York", "2026-11-01", "2026-11-01T08:00", "2026-11-01T12:00"),
        ("02:00-03:00", "Europe/Berlin", "2026-10-25", "2026-10-25T00:00", "2026-10-25T02:00"),
        ("01:30-02:30", "Antarctica/Troll", "2026-10-25", "2026-10-24T23:30", "2026-10-25T02:30"),
        # clocks that move back over midnight (00:01 to 23:01): the second 23:30 belongs to the same evening
        ("22:00-00:30", "America/St_Johns", "2010-11-06", "2010-11-07T00:30", "2010-11-07T04:00"),
        # a window of almost a day gives way to the one before it
        ("01:50-01:40", "America/New_York", "2026-11-01", "2026-11-01T06:40", "2026-11-02T06:40"),
        # the zone skipped 2011-12-30
        ("03:00-07:00", "Pacific/Apia", "2011-12-29", "2011-12-29T13:00", "2011-12-29T17:00"),
        ("03:00-07:00", "Pacific/Apia", "2011-12-31", "2011-12-30T13:00", "2011-12-30T17:00"),
        ("22:00-02:00", "Pacific/Apia", "2011-12-29", "2011-12-30T08:00", "2011-12-30T12:00"),
    ],
)
def test_a_date_has_the_window_of_its_local_hours(hours: str, zone: str, day: str, opens: str, closes: str) -> None:
    expected = Interval(date.fromisoformat(day), utc(opens), utc(closes))
    assert window(hours, zone).on(expected.date) == expected


@pytest.mark.parametrize(
    ("hours", "zone", "day"),
    [
        ("02:00-03:00", "America/New_York", "2026-03-08"),  # both edges are 03:00 EDT
        ("02:30-03:10", "America/New_York", "2026-03-08"),  # 03:30 to 03:10
        ("02:00-03:00", "Antarctica/Troll", "2026-03-29"),
        ("03:00-07:00", "Pacific/Apia", "2011-12-30"),
        ("22:00-02:00", "Pacific/Apia", "2011-12-30"),
        ("00:00-23:59", "Pacific/Kwajalein", "1993-08-21"),
        ("03:00-07:00", "Pacific/Fakaofo", "2011-12-30"),
    ],
)
def test_a_date_whose_hours_do_not_exist_has_an_empty_window(hours: str, zone: str, day: str) -> None:
    that = window(hours, zone)
    empty = that.on(date.fromisoformat(day))
    assert empty.is_empty
    assert not empty.contains(empty.opens)
    assert that.closed_between(empty.date - DAY, empty.closes) == [empty], "it is accounted for"
    assert that.next_after(empty.opens - timedelta(seconds=1)).date == empty.date + DAY


@pytest.mark.parametrize(
    ("hours", "zone", "now", "day"),
    [
        # 00:01 became 23:01 of the evening before, and the window of the new date had opened at the first 00:00
        ("00:00-04:00", "America/St_Johns", "2010-11-07T02:45", "2010-11-07"),
        # 01:00 on the 31st, in the window that opened on the 29th, for there was no 30th
        ("22:00-02:00", "Pacific/Apia", "2011-12-30T11:00", "2011-12-29"),
    ],
)
def test_a_window_is_found_though_the_local_date_is_far_from_its_own(hours: str, zone: str, now: str, day: str) -> None:
    that, at = window(hours, zone), utc(now)
    found = that.containing(at)
    assert found is not None
    assert found.date == date.fromisoformat(day)
    assert that.last_closed(at).date == found.date - DAY
    assert that.last_closed(found.closes).date == found.date


def test_an_interval_is_half_open() -> None:
    interval = window("03:00-07:00", "UTC").on(date(2026, 1, 1))
    assert interval.contains(interval.opens)
    assert not interval.contains(interval.closes)
    assert not interval.contains(interval.opens - timedelta(microseconds=1))


def test_downtime_leaves_every_date_to_account_for() -> None:
    that = window("03:00-07:00", "America/New_York")
    now = utc("2026-03-10T12:00")
    assert [i.date.day for i in that.closed_between(date(2026, 3, 5), now)] == [6, 7, 8, 9, 10]
    assert that.closed_between(date(2026, 3, 10), now) == []
    assert that.closed_between(date(2030, 1, 1), now) == [], "a clock set back accounts for nothing twice"
    assert that.last_closed(now).date == date(2026, 3, 10)
    assert that.last_closed(now - timedelta(hours=2)).date == date(2026, 3, 9)


def test_the_window_in_progress_is_not_the_next_one() -> None:
    that = window("03:00-07:00", "UTC")
    assert that.next_after(utc("2026-01-01T03:00")).date == date(2026, 1, 2)
    assert that.next_after(utc("2026-01-01T02:59")).date == date(2026, 1, 1)


@pytest.mark.parametrize("name", ["Nowhere/Town", "America", "../../etc/passwd", "", "/etc/localtime", "a\0b"])
def test_an_unknown_zone_is_refused_by_name(name: str) -> None:
    with pytest.raises(Malformed) as refused:
        Window(time(3), time(7), name)
    assert repr(name) in refused.value.message
    assert "America/New_York" in refused.value.hint


def test_hours_that_say_nothing_are_refused() -> None:
    with pytest.raises(Malformed, match="both 03:00"):
        Window(time(3), time(3), "UTC")
    with pytest.raises(Malformed, match=r"\+01:00"):
        Window(time.fromisoformat("03:00+01:00"), time(7), "UTC")


@given(windows, dates)
def test_windows_of_neighbouring_dates_never_overlap(that: Window, day: date) -> None:
    today, tomorrow = that.on(day), that.on(day + DAY)
    assert today.opens <= today.closes <= tomorrow.closes
    assert tomorrow.is_empty or today.closes <= tomorrow.opens


@given(windows, instants)
def test_an_instant_is_in_the_window_that_contains_it_and_in_no_other(that: Window, now: datetime) -> None:
    around = [that.on(now.date() + n * DAY) for n in range(-4, 5)]
    assert [i for i in around if i.contains(now)] == [i for i in [that.containing(now)] if i]


@given(windows, instants)
def test_the_next_window_is_the_first_that_opens_later(that: Window, now: datetime) -> None:
    following = that.next_after(now)
    assert following.opens > now
    assert not following.is_empty
    around = [that.on(now.date() + n * DAY) for n in range(-4, 8)]
    assert following == min((i for i in around if i.opens > now and not i.is_empty), key=lambda i: i.opens)


@given(windows, instants, st.timedeltas(timedelta(), timedelta(days=40)))
def test_accounting_in_two_steps_is_accounting_in_one(that: Window, start: datetime, later: timedelta) -> None:
    first, now = that.last_closed(start), start + later
    assert first.closes <= start
    middle = that.last_closed(start + later / 2)
    in_one = that.closed_between(first.date, now)
    in_two = that.closed_between(first.date, middle.closes) + that.closed_between(middle.date, now)
    assert in_one == in_two
    assert [i.date for i in in_one] == [first.date + n * DAY for n in range(1, len(in_one) + 1)], "no date left out"
    running = that.containing(now)
    assert running is None or running not in in_one


def transitions(zone: str, first: date, last: date) -> list[datetime]:
    """Find the instants at which the offset of `zone` changes, to the minute, by halving the days where it does."""
    where = ZoneInfo(zone)
    found: list[datetime] = []
    step = timedelta(days=5)  # no zone moves twice in so short a time and back, 1990 to 2037
    low = datetime.combine(first, time(), UTC)
    while low.date() <= last:
        a, b = low, low + step
        low = b
        if a.astimezone(where).utcoffset() == b.astimezone(where).utcoffset():
            continue
        while b - a > timedelta(minutes=1):
            middle = a + (b - a) // 2
            middle = middle.replace(second=0, microsecond=0)
            if middle.astimezone(where).utcoffset() == a.astimezone(where).utcoffset():
                a = middle
            else:
                b = middle
        found.append(b)
    return found


@pytest.mark.parametrize("part", range(4))
def test_no_zone_of_the_database_breaks_the_proof(part: int) -> None:
    """Step 1 of the module's proof assumes that no clock moved by more than a day; here is every move since 1960."""
    hours = ["00:00-23:59", "03:00-07:00", "22:00-02:00", "01:50-01:40"]
    for zone in ZONES[part::4]:
        changes = transitions(zone, date(1960, 1, 1), date(2037, 12, 31))
        for that in [window(h, zone) for h in hours]:
            for change in changes:
                days = [that.on(change.date() + n * DAY) for n in range(-3, 4)]
                for today, tomorrow in pairwise(days):
                    assert today.opens <= today.closes <= tomorrow.closes, (zone, today)
                    assert tomorrow.is_empty or today.closes <= tomorrow.opens, (zone, today)


def test_an_ordinary_day_imports_no_dateutil() -> None:
    program = (
        "import sys; from datetime import *; from orchestration.phase.window import Window\n"
        "that = Window(time(3), time(7), 'America/New_York')\n"
        "def ask(now): that.containing(now), that.next_after(now), that.last_closed(now)\n"
        "ask(datetime(2026, 7, 8, 8, tzinfo=UTC)); ask(datetime(2026, 3, 8, 8, tzinfo=UTC))\n"
        "assert not {'dateutil', 'dataclasses', 'pathlib', 'logging', 'subprocess'} & {*sys.modules}\n"
        "Window(time(2, 30), time(7), 'America/New_York').on(date(2026, 3, 8)); assert 'dateutil' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_host_without_zone_files_uses_those_of_tzdata() -> None:
    program = (
        "import sys, zoneinfo; from datetime import *; from orchestration.host import zones\n"
        "assert zoneinfo.TZPATH == (), zoneinfo.TZPATH\n"
        "zones.find('America/New_York'); zones.find('Europe/Berlin'); zones.find('Nowhere/Town')\n"
        "assert len(zoneinfo.TZPATH) == 1 and 'tzdata' in zoneinfo.TZPATH[0], zoneinfo.TZPATH\n"
        "from orchestration.phase.window import Window\n"
        "print(Window(time(3), time(7), 'America/New_York').on(date(2026, 7, 8)).opens)\n"
        "assert 'importlib.resources' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, env={"PYTHONTZPATH": ""}, capture_output=True, text=True
    )
    assert done.stdout == "2026-07-08 07:00:00+00:00\n"
