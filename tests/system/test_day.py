"""The guests' own day: whatever the hour, a window is shut or open because a test said so."""

from __future__ import annotations

import ast
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from orchestration.phase.window import Window
from tests.system.day import Day
from tests.system.guest import Guest
from tests.system.installation import SETTINGS, Installed
from tests.system.layers import ROOT
from tests.system.operator import STATE, TICK, Operator
from tests.waiting import until

BEGINNINGS = [
    datetime.combine(day, hour, UTC)
    for day in (date(2026, 3, 8), date(2026, 3, 29), date(2026, 11, 21), date(2026, 12, 31), date(2028, 2, 29))
    for hour in (*(time(hour) for hour in range(24)), time(6, 59, 59), time(11, 59, 59), time(23, 59, 59, 999999))
]


def window(day: Day, now: datetime, **hours: timedelta) -> Window:
    said = dict(line.replace('"', "").split(" = ") for line in day.window(now, **hours).splitlines())
    opens, closes = time.fromisoformat(said["window_opens"]), time.fromisoformat(said["window_closes"])
    return Window(opens, closes, said["time_zone"])


@pytest.mark.parametrize("began", BEGINNINGS, ids=str)
def test_while_a_guest_lives_its_windows_are_of_one_date_which_none_has_closed(began: datetime) -> None:
    day = Day.of(began)
    ages = [timedelta(), timedelta(seconds=1), timedelta(minutes=45)]
    shut = [window(day, began + age) for age in ages]
    accounted = {one.last_closed(began + age).date for one in shut for age in ages}
    assert len(accounted) == 1, "a window was laid on a date that another one has closed"
    for age in ages:
        now = began + age
        assert all(one.containing(now) is None for one in shut)
        opened = window(day, now, opens_in=timedelta(minutes=-5)).containing(now)
        assert opened is not None
        assert {opened.date - timedelta(days=1)} == accounted


def test_a_guest_begins_with_its_window_shut_and_no_past(guest: Guest, operator: Operator, installed: Installed) -> None:
    """Whatever the hour of this run, and of the run that built the layer."""
    assert not [path for layer in installed.stack.layers for path in layer.glob(f"{STATE.lstrip('/')}/*.db")]
    shipped = (ROOT / "systemd/orchestrator.toml").read_text()
    assert guest.path(SETTINGS).read_text() == Day.of(guest.began).shut_in(shipped, guest.began)
    operator.without_timer()
    guest.sh(f"systemctl start {TICK}")
    ticks = until(operator.ticks, what="a tick")
    assert {tick["decision"] for tick in ticks} == {"noop"}
    assert all(datetime.fromisoformat(tick["started_at"]) > guest.began for tick in ticks)
    (outside,) = [found for found in ticks[-1]["reasons"] if found["reason"] == "outside_phase_window"]
    opens = datetime.fromisoformat(outside["evidence"].split()[-2] + "T" + outside["evidence"].split()[-1])
    assert opens - guest.began > timedelta(hours=2, minutes=59)


def test_no_guest_is_booted_without_a_word_on_its_window() -> None:
    """`booted` boots what is on the disk, with the settings that it has: only what lays better ones may use it."""
    using = {
        path.name
        for path in Path(__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom | ast.Import) and {"booted", "guest"} & {name.name for name in node.names}
    }
    assert using == {"installation.py"}
