"""Every local date has one PHASE or a recorded reason for none: the whole kernel under a clock of its own.

Given files, a store in memory and a clock, tick; the runner's part is played by ending what was queued.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from orchestration.cycles import ledger
from orchestration.cycles.cycle import CycleEvent, Result
from orchestration.exits import Exit
from orchestration.settings import Phase, Settings
from orchestration.store.sqlite import SqliteDatabase
from orchestration.tick import calendar, history, take_in
from orchestration.tick.decision import Noop, Reason, decide
from orchestration.tick.history import Tick
from orchestration.tick.kernel import Kernel
from orchestration.tick.observe import observe
from orchestration.tick.tick import tick

MINUTE = timedelta(minutes=1)
HOURS = [time(0), time(4)], [time(1, 30), time(2, 30)], [time(2), time(3)], [time(3), time(7)], [time(22), time(2)]


class World:
    """A host whose clock, boot and runner the test moves."""

    def __init__(self, folder: Path, phase: Phase, start: datetime) -> None:
        self.now = start
        self.boot_id = "boot-1"
        self.end_with = CycleEvent.SUCCEED
        self.settings = Settings.model_validate(
            {"state_dir": str(folder), "textfile": str(folder / "kloros.prom"), "phase": phase}
        )
        self.db = SqliteDatabase(":memory:")
        self.serial = 0

    def kernel(self) -> Kernel:
        return Kernel(
            settings=self.settings,
            db=self.db,
            start=lambda _entry: None,
            publish=lambda: None,
            now=lambda: self.now,
            boot_id=self.boot_id,
        )

    def tick(self, now: datetime) -> Tick:
        self.now = now
        self.serial += 1
        return tick(self.kernel(), f"tick-{self.serial}")

    def turned_away(self, now: datetime, reason: str) -> None:
        self.serial += 1
        findings = (("gate", reason, ""),)
        record = Tick(f"tick-{self.serial}", now, now, self.boot_id, "skipped", Exit.DISABLED, None, reason, findings)
        history.append(self.db, record)

    def run_what_is_queued(self) -> None:
        cycle = ledger.claim_next(self.db, runner="test", now=self.now)
        if cycle is not None:
            ledger.finish(self.db, cycle, self.end_with, Result(reason="played"), now=self.now)

    def live(self, first: datetime, last: datetime, step: timedelta = MINUTE) -> None:
        """Tick at every step, with a runner that finishes each cycle between two ticks."""
        for now in steps(first, last, step):
            self.tick(now)
            self.run_what_is_queued()

    def dates(self) -> dict[date, tuple[str, str]]:
        return {day.date: (day.result, day.reason) for day in calendar.recent(self.db, 1000)}

    def phases(self) -> list[date]:
        return sorted(c.phase_date for c in ledger.recent(self.db, 1000) if c.phase_date is not None)


def steps(first: datetime, last: datetime, step: timedelta) -> Iterator[datetime]:
    while first <= last:
        yield first
        first += step


def new_york(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 6, day, hour, minute, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, Phase(), new_york(9, 12))
    world.tick(world.now)
    return world


@pytest.mark.parametrize("hours", HOURS, ids=lambda hours: f"{hours[0]:%H%M}-{hours[1]:%H%M}")
@pytest.mark.parametrize(
    ("zone", "moved"),
    [
        ("America/New_York", date(2026, 3, 8)),
        ("America/New_York", date(2026, 11, 1)),
        ("Australia/Lord_Howe", date(2026, 4, 5)),
        ("Antarctica/Troll", date(2026, 3, 29)),
    ],
)
def test_around_a_move_of_the_clock_the_kernel_gives_each_date_one_phase(
    tmp_path: Path, zone: str, moved: date, hours: list[time]
) -> None:
    noon = datetime.combine(moved, time(12), ZoneInfo(zone)).astimezone(UTC)
    phase = Phase(window_opens=hours[0], window_closes=hours[1], time_zone=zone)
    world = World(tmp_path, phase, noon - timedelta(days=2))
    world.tick(world.now)
    for ahead in (-1, 0, 1, 2):
        midnight = noon + timedelta(days=ahead) - timedelta(hours=12)
        world.live(midnight - timedelta(hours=4), midnight + timedelta(hours=6), timedelta(minutes=10))
    world.tick(noon + timedelta(days=3))
    days = [moved + timedelta(days=n) for n in (-1, 0, 1)]
    empty = [day for day in days if world.kernel().window.on(day).is_empty]
    assert [day for day in world.phases() if day in days] == [day for day in days if day not in empty]
    recorded = world.dates()
    assert [recorded[day][0] for day in days] == ["skipped" if day in empty else "succeeded" for day in days]


def test_days_of_downtime_are_each_accounted_for(world: World) -> None:
    world.boot_id = "boot-2"
    world.tick(new_york(14, 12))
    days = [date(2026, 6, n) for n in range(10, 15)]
    assert world.dates() == dict.fromkeys(days, ("skipped", "host_down"))


def test_a_timer_that_stopped_is_told_from_a_host_that_was_down(world: World) -> None:
    world.tick(new_york(10, 12))
    assert world.dates() == {date(2026, 6, 10): ("skipped", "no_ticks")}


@pytest.mark.parametrize("reason", ["disabled", "halted", "lock_held"])
def test_a_window_in_which_ticks_were_turned_away_names_why(world: World, reason: str) -> None:
    for now in steps(new_york(10, 3), new_york(10, 6, 59), timedelta(minutes=5)):
        world.turned_away(now, reason)
    world.tick(new_york(10, 7))
    assert world.dates() == {date(2026, 6, 10): ("skipped", reason)}


def test_a_cycle_that_fills_the_window_is_the_reason(world: World) -> None:
    intents = Path(world.settings.state_dir) / "intents"
    intents.mkdir()
    (intents / "1_trigger_dream_0.json").write_text('{"intent_type": "trigger_dream", "priority": 5, "reason": "r"}')
    world.tick(new_york(10, 2, 59))
    assert ledger.claim_next(world.db, runner="test", now=world.now) is not None
    Path(world.settings.state_dir, "locks", "runner.lock").touch()
    with world.kernel().runner_lock.held("test"):
        for now in steps(new_york(10, 3), new_york(10, 7), timedelta(minutes=30)):
            world.tick(now)
    assert world.dates() == {date(2026, 6, 10): ("skipped", "cycle_active")}


def test_a_failing_phase_is_retried_with_backoff_and_its_last_failure_recorded(world: World) -> None:
    world.end_with = CycleEvent.FAIL
    world.live(new_york(10, 3), new_york(10, 7))
    tries = [c.queued_at - new_york(10, 3) for c in reversed(ledger.recent(world.db, 100))]
    assert tries[:5] == [timedelta(minutes=m) for m in (0, 1, 6, 21, 51)]
    assert tries[5] - tries[4] == timedelta(minutes=30)
    assert world.dates() == {date(2026, 6, 10): ("failed", "failed")}


def test_a_failed_phase_that_later_succeeds_is_a_success(world: World) -> None:
    world.end_with = CycleEvent.TIME_OUT
    world.live(new_york(10, 3), new_york(10, 3, 5))
    world.end_with = CycleEvent.SUCCEED
    world.live(new_york(10, 3, 6), new_york(10, 8))
    assert world.dates() == {date(2026, 6, 10): ("succeeded", "window")}


def test_a_phase_that_outlives_its_window_is_accounted_for_when_it_ends(world: World) -> None:
    world.tick(new_york(10, 6, 59))
    ledger.claim_next(world.db, runner="test", now=world.now)
    with world.kernel().runner_lock.held("test"):
        world.tick(new_york(10, 7, 1))
        assert world.dates() == {}
        (cycle,) = ledger.active(world.db)
        ledger.finish(world.db, cycle, CycleEvent.SUCCEED, Result(reason="played"), now=new_york(10, 7, 30))
    world.tick(new_york(10, 7, 31))
    assert world.dates() == {date(2026, 6, 10): ("succeeded", "window")}


def test_a_missed_window_is_made_up_for_once_when_the_settings_say_so(tmp_path: Path) -> None:
    world = World(tmp_path, Phase(missed="run_once"), new_york(9, 12))
    world.tick(world.now)
    world.boot_id = "boot-2"
    world.live(new_york(12, 12), new_york(12, 13), timedelta(minutes=5))
    assert world.phases() == [date(2026, 6, 12)], "the newest missed date, once"
    assert world.dates() == {
        date(2026, 6, 10): ("skipped", "host_down"),
        date(2026, 6, 11): ("skipped", "host_down"),
        date(2026, 6, 12): ("succeeded", "missed_window"),
    }


def test_making_up_for_a_window_is_tried_once_only(tmp_path: Path) -> None:
    world = World(tmp_path, Phase(missed="run_once"), new_york(9, 12))
    world.tick(world.now)
    world.end_with = CycleEvent.FAIL
    world.live(new_york(10, 12), new_york(10, 20), timedelta(minutes=5))
    assert world.phases() == [date(2026, 6, 10)]
    assert world.dates()[date(2026, 6, 10)] == ("failed", "failed")


def test_a_clock_that_jumps_a_day_forward_and_back_loses_no_date(world: World) -> None:
    world.live(new_york(10, 3), new_york(10, 4), timedelta(minutes=5))
    world.tick(new_york(12, 12))
    world.live(new_york(11, 2), new_york(11, 8), timedelta(minutes=5))
    world.live(new_york(12, 2), new_york(12, 8), timedelta(minutes=5))
    assert world.phases() == [date(2026, 6, n) for n in (10, 11, 12)]
    assert {result for result, _ in world.dates().values()} == {"succeeded"}


def test_a_phase_that_ends_between_two_looks_of_one_tick_is_not_started_again(world: World) -> None:
    world.tick(new_york(10, 3))
    world.run_what_is_queued()  # ended, and no tick has settled it
    kernel = world.kernel()
    decision = decide(observe(kernel, take_in.look(kernel)), kernel.policy)
    assert isinstance(decision, Noop)
    assert decision.findings[-1].reason is Reason.CYCLE_ACTIVE


def test_a_clock_that_was_a_year_ahead_leaves_no_date_unaccounted(tmp_path: Path) -> None:
    """A dead battery: the dates that it closed come yet, and each needs its own reason then."""
    start = datetime(2026, 11, 21, 12, tzinfo=UTC)
    world = World(tmp_path, Phase(time_zone="UTC"), start)
    world.tick(start)
    world.tick(start + timedelta(days=365))
    world.turned_away(start + timedelta(hours=16), "disabled")
    world.tick(start + timedelta(days=1))
    found = [(day.date, day.reason) for day in calendar.recent(world.db, 10)]
    assert found == [(date(2026, 11, 22), "disabled")]


def test_a_failure_of_a_date_that_a_clock_ahead_had_accounted_for_is_recorded(world: World) -> None:
    world.tick(new_york(14, 12))
    assert world.dates()[date(2026, 6, 10)][0] == "skipped"
    world.end_with = CycleEvent.FAIL
    world.live(new_york(10, 3), new_york(10, 7, 1))
    assert world.dates()[date(2026, 6, 10)] == ("failed", "failed")
    assert len(world.phases()) > 2
    counted = {row["labels"]: row["value"] for row in world.db.rows("counters.all") if "phase_dates" in str(row["name"])}
    assert counted['result="failed"'] == 1, "a date, not its tries"
    world.end_with = CycleEvent.SUCCEED
    world.live(new_york(11, 3), new_york(11, 3, 2))
    assert world.dates()[date(2026, 6, 11)] == ("succeeded", "window")
