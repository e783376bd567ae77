"""Every local date from 1990 to 2037 has one PHASE or one recorded skip, in seven zones that move their clocks.

The decision is the tick's own; the account kept here is the smallest one there can be: a date is done once a PHASE was
decided for it, and skipped once its window has closed without. `systemd-analyze calendar` is the oracle for ordinary days.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest

from orchestration.cycles.backoff import NO_FAILURES, Backoff
from orchestration.phase.window import Interval, Window
from orchestration.tick.decision import Phase, decide
from orchestration.tick.observation import Observation, Policy

POLICY = Policy(phase_backoff=Backoff(()), dream_backoff=Backoff(()))
FIRST, LAST = date(1990, 1, 1), date(2037, 12, 31)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
ZONES = [
    "America/New_York",
    "Europe/Berlin",
    "Europe/Helsinki",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/Sao_Paulo",
    "Antarctica/Troll",
]
HOURS = ["00:00-04:00", "01:30-02:30", "02:00-03:00", "03:00-07:00", "22:00-02:00"]


def window(hours: str, zone: str) -> Window:
    opens, closes = hours.split("-")
    return Window(time.fromisoformat(opens), time.fromisoformat(closes), zone)


@cache
def transitions(zone: str) -> list[datetime]:
    """Find the minutes at which the offset of `zone` changes."""
    where = ZoneInfo(zone)
    found: list[datetime] = []
    a = datetime.combine(FIRST, time(), UTC)
    while a.date() <= LAST:
        b = a + DAY
        if a.astimezone(where).utcoffset() != b.astimezone(where).utcoffset():
            minutes = (a + n * MINUTE for n in range(1, 24 * 60 + 1))
            before = a.astimezone(where).utcoffset()
            found.append(next(m for m in minutes if m.astimezone(where).utcoffset() != before))
        a = b
    return found


class Account:
    """What a tick keeps: the last date that is accounted for, and how each one ended."""

    def __init__(self, that: Window, now: datetime) -> None:
        self.window = that
        self.settled = that.last_closed(now).date
        self.ran: list[date] = []
        self.skipped: list[date] = []

    def tick(self, now: datetime) -> None:
        for closed in self.window.closed_between(self.settled, now):
            if closed.date not in self.ran[-2:]:
                self.skipped.append(closed.date)
            self.settled = closed.date
        decision = decide(self.observe(now), POLICY)
        if isinstance(decision, Phase) and decision.phase_date is not None:
            self.ran.append(decision.phase_date)

    def observe(self, now: datetime) -> Observation:
        """See a world in which nothing but PHASE is due."""
        held = self.window.containing(now)
        return Observation(
            now=now,
            maintenance=False,
            active=None,
            window=held,
            next_window=held or self.window.on(now.date()),
            phase_done=held is not None and held.date in self.ran[-2:],
            phase_failures=NO_FAILURES,
            missed=None,
            promotions=(),
            parked=(),
            left=(),
            dream_failures=NO_FAILURES,
            intents=(),
        )


def span(first: datetime, last: datetime) -> Iterator[datetime]:
    """Yield every minute from `first` to `last`."""
    for n in range(int((last - first) / MINUTE) + 1):
        yield first + n * MINUTE


def ticked(that: Window, moved: datetime) -> tuple[Account, list[Interval]]:
    """Tick each minute around a move of the clock: two hours either way, and on to the ends of the windows near it.

    Minutes well inside a window, or between two, decide as their neighbours do, so there one every three hours is enough.
    """
    dates = [that.on(moved.date() + n * DAY) for n in range(-3, 4)]
    edges = {edge + n * MINUTE for i in dates[1:-1] for edge in (i.opens, i.closes) for n in (-1, 0, 1)}
    first, last = dates[0].closes, dates[-2].closes
    sparse = {first + n * timedelta(hours=3) for n in range(int((last - first) / timedelta(hours=3)))}
    around = set(span(moved - timedelta(hours=2), moved + timedelta(hours=2)))
    account = Account(that, first)
    for now in sorted({first, last} | {t for t in edges | sparse | around if first < t < last}):
        account.tick(now)
    return account, dates[1:-1]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hours", HOURS)
def test_every_date_around_a_move_of_the_clock_runs_once_or_is_skipped_once(zone: str, hours: str) -> None:
    that = window(hours, zone)
    moves = transitions(zone)
    assert len(moves) > 20
    for moved in moves:
        account, dates = ticked(that, moved)
        assert account.ran == [i.date for i in dates if not i.is_empty], moved
        assert account.skipped == [i.date for i in dates if i.is_empty], moved


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hours", HOURS)
def test_every_date_has_a_window_of_its_own_or_an_empty_one(zone: str, hours: str) -> None:
    """By intervals alone: a non-empty one holds a whole minute that no other has, so it is run once."""
    that = window(hours, zone)
    closed = that.closed_between(FIRST - DAY, that.on(LAST).closes)
    assert [i.date for i in closed] == [FIRST + n * DAY for n in range((LAST - FIRST).days + 1)]
    ended = that.on(FIRST - DAY).closes
    empty = []
    for i in closed:
        assert ended <= i.opens <= i.closes
        assert i.opens.second == i.closes.second == 0
        ended = i.closes
        if i.is_empty:
            empty.append(i.date)
    moved = {m.astimezone(ZoneInfo(zone)).date() for m in transitions(zone)}
    assert set(empty) <= moved, "only a moved clock takes a window away"
    assert len(empty) < 100


@pytest.mark.parametrize("zone", ZONES)
def test_on_ordinary_days_edges_are_where_systemd_has_them(zone: str) -> None:
    """systemd.time(7) is an oracle where no clock moves; in the repeated hour it is wrong (systemd issue 8647)."""
    where = ZoneInfo(zone)
    moved = {(m.astimezone(where) + n * DAY).date() for m in transitions(zone) for n in (-1, 0, 1)}
    for year in (1995, 2012, 2033):
        oracle = {
            hours: [*calendar(f"*-*-* {hours}", zone, year, 370)] for hours in ("00:00", "01:30", "02:00", "03:00", "22:00")
        }
        for hours in HOURS:
            that = window(hours, zone)
            ordinary = [e for e in oracle[hours[:5]] if e.astimezone(where).date() not in moved]
            assert len(ordinary) > 300
            for opens in ordinary:
                assert that.on(opens.astimezone(where).date()).opens == opens
                assert that.next_after(opens - MINUTE).opens == opens
                running = that.containing(opens)
                assert running is not None
                assert running.opens == opens


def calendar(expression: str, zone: str, year: int, count: int) -> Iterator[datetime]:
    """Ask systemd for the next `count` times at which the expression elapses, from the start of `year`."""
    asked = subprocess.run(
        [
            "systemd-analyze",
            "calendar",
            f"--base-time={year}-01-01 00:00:00 UTC",
            f"--iterations={count}",
            f"{expression}:00 {zone}",
        ],
        check=True,
        capture_output=True,
        text=True,
        env={"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )
    for day, at in re.findall(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) UTC$", asked.stdout, re.MULTILINE):
        yield datetime.fromisoformat(f"{day}T{at}").replace(tzinfo=UTC)
