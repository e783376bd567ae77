"""The survey over a real store with a seeded history: what one look at Pulse says, and that looking changes nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.baseline.validation import Verdict as Tried
from orchestration.bridge.census import Census, Seat, Standing, Tally, Waits
from orchestration.bridge.telling import Teller
from orchestration.bridge.wake.state import Wake
from orchestration.bridge.wake.telling import Counted
from orchestration.bridge.wake.telling import Teller as WakeTeller
from orchestration.bridge.wire import ThreadStatus
from orchestration.cycles import products
from orchestration.cycles.cycle import Cause, CycleState, JobName, Origin
from orchestration.exits import Exit
from orchestration.host import clock
from orchestration.promotions import ledger as promotions
from orchestration.pulse import health
from orchestration.pulse.document import as_json
from orchestration.pulse.health import Condition, Mode, Verdict
from orchestration.pulse.loop_health import Beat
from orchestration.pulse.survey import survey
from orchestration.store.counters import gauges
from orchestration.store.instants import to_text
from orchestration.store.opening import Place
from orchestration.store.port import Database
from orchestration.store.sqlite import SqliteDatabase
from tests.benchmarks.big_store import fill
from tests.contract.accepted import advise, commit, conclude, hold
from tests.contract.seeded import NOW, Seeded
from tests.pure.test_scope_seen import WELL_LED

HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)


@pytest.fixture
def world(tmp_path: Path, kernel_db: Database, ready_place: Place) -> Seeded:
    return Seeded(tmp_path, kernel_db, ready_place)


def test_a_new_store_is_unknown_and_has_every_part(world: Seeded) -> None:
    found = world.survey()
    assert found.judgement.verdict is Verdict.UNKNOWN
    assert found.heartbeat is not None
    assert [one.beat for one in found.heartbeat.stretches] == [Beat.BEFORE]
    assert (found.cycles, found.failures, found.active, found.parked, found.backoffs) == ((), (), (), (), ())
    assert (found.escrow, found.baseline, found.advice) == ((), None, None)
    assert [(queue.name, queue.count, queue.oldest) for queue in found.queues] == [
        ("promotions", 0, None),
        ("intents", 0, None),
        ("cycles", 0, None),
        ("federation", 0, None),
        ("escrow", 0, None),
    ]
    assert found.next_window is not None
    assert found.next_window.opens > NOW


def test_a_day_of_ticks_with_an_outage_and_refusals(world: Seeded) -> None:
    world.ticks(NOW - 23 * HOUR, 60, boot="before")
    world.ticks(NOW - 20 * HOUR, 60)
    for minute in range(5):
        refused = [("gate", "lock_held", f"tick {minute} holds it")]
        world.tick(NOW - 19 * HOUR + minute * MINUTE, decision="skipped", exit_code=Exit.LOCK_HELD, findings=refused)
    world.ticks(NOW - HOUR, 60)
    found = world.survey().heartbeat
    assert found is not None
    assert [(one.beat, one.minutes) for one in found.stretches] == [
        (Beat.BEFORE, 60),
        (Beat.NOOP, 60),
        (Beat.HOST_DOWN, 120),
        (Beat.NOOP, 60),
        (Beat.LOCK_HELD, 5),
        (Beat.UNKNOWN, 1075),
        (Beat.NOOP, 60),  # up to the minute before now's, whose own tick may still come
    ]
    assert sum(one.minutes for one in found.stretches) == 1440
    assert found.gaps[1].evidence == "tick 4 holds it"


def test_a_cycle_stands_in_the_list_with_its_series(world: Seeded) -> None:
    world.cycle(lines=[{"joy": 0.25, "n": {"x": 1}}, "damaged", {"joy": 0.75}])
    (line,) = world.survey().cycles
    assert (line.cycle, line.job, line.state, line.cause) == (1, JobName.DREAM, CycleState.SUCCEEDED, Cause.PROMOTIONS)
    assert (line.seconds, line.timeout_seconds, line.recorded_at) == (10.0, 3600.0, NOW - HOUR + timedelta(seconds=10))
    assert line.series == {"joy": 0.75, "n.x": 1.0}
    assert line.damaged_lines == world.survey().damaged_lines == 1


def test_figures_leave_out_what_a_cycle_does_not_have(world: Seeded) -> None:
    world.cycle(lines=[{"joy": 1.0}], seconds=10)
    world.cycle(CycleState.FAILED, lines=[{"rage": 2.0}], seconds=30)
    world.cycle(CycleState.LOST, seconds=500)
    world.cycle(CycleState.CANCELLED, seconds=20)
    found = world.survey().summary
    assert found.totals == {"dream": {"succeeded": 1, "failed": 1, "cancelled": 1, "lost": 1}}
    assert (found.over, found.streak_state, found.streak) == (4, CycleState.CANCELLED, 1)
    assert found.success_rate == pytest.approx(1 / 3)
    assert (found.mean_seconds, found.p95_seconds) == (20.0, 30.0)  # of a lost one nobody knows when it ended
    assert found.means == {"joy": 1.0, "rage": 2.0}


def test_failures_come_with_the_end_of_their_output_newest_first(world: Seeded) -> None:
    for number in range(4):
        world.cycle(CycleState.FAILED, reason=f"exit code {number}", output=b"\x1b[31m<script>\x1b[0m\xff %d\n" % number)
        world.cycle()
    found = world.survey(failures=3).failures
    assert [(one.line.reason, one.tail) for one in found] == [(f"exit code {n}", f"<script>\ufffd {n}") for n in (3, 2, 1)]


def test_the_active_cycle_has_its_deadline_and_the_queue_its_age(world: Seeded) -> None:
    world.cycle(CycleState.RUNNING, at=NOW - 10 * MINUTE)
    world.cycle(CycleState.QUEUED, at=NOW - 3 * MINUTE)
    found = world.survey()
    assert [(line.cycle, line.state, line.seconds, line.timeout_seconds) for line in found.active] == [
        (1, CycleState.RUNNING, None, 3600.0),
        (2, CycleState.QUEUED, None, 3600.0),
    ]
    queued = next(queue for queue in found.queues if queue.name == "cycles")
    assert (queued.count, queued.oldest) == (1, NOW - 3 * MINUTE)


def leave(world: Seeded, stem: str, *, acked: bool = False) -> None:
    for folder, name in (("promotions", f"{stem}.json"), ("promotions_ack", f"{stem}_ack.json" if acked else "")):
        (world.home / folder).mkdir(exist_ok=True)
        if name:
            (world.home / folder / name).write_text("{}")


def test_the_oldest_promotion_is_one_that_waits_still(world: Seeded) -> None:
    for age, stem in enumerate(("answered-by-others", "gone", "waits", "newer")):
        promotions.see(world.db, stem, promotion_id=stem, fitness=0.5, at=NOW - timedelta(hours=9 - age))
    for stem in ("answered-by-others", "waits", "newer"):
        leave(world, stem, acked=stem == "answered-by-others")
    gauges(world.db, kloros_promotions_unacked=2)
    queue = world.survey().queues[0]
    assert (queue.name, queue.count, queue.oldest) == ("promotions", 2, NOW - 7 * HOUR)


def test_parked_promotions_and_backoffs_are_told(world: Seeded) -> None:
    for stem in ("bad", "gone"):
        promotions.see(world.db, stem, promotion_id=stem, fitness=0.5, at=NOW - DAY)
        promotions.fail(world.db, [stem], cycle=1, reason="exit code 1", park_after=1, at=NOW - HOUR)
    leave(world, "bad")
    world.cycle(CycleState.FAILED, at=NOW - timedelta(seconds=40), seconds=10)
    found = world.survey()
    assert [(one.stem, one.failures, one.reason, one.since) for one in found.parked] == [
        ("bad", 1, "exit code 1", NOW - HOUR)
    ]
    assert [(one.job, one.failures) for one in found.backoffs] == [("dream", 1)]
    assert found.backoffs[0].until == NOW - timedelta(seconds=30) + world.settings.dream.backoff[0]


def test_a_failed_phase_inside_its_window_waits(tmp_path: Path) -> None:
    hours = {"KLR_PHASE_WINDOW_OPENS": "11:00:00", "KLR_PHASE_WINDOW_CLOSES": "15:00:00"}
    world = Seeded(tmp_path, **hours)
    failed = CycleState.FAILED
    world.cycle(failed, job=JobName.PHASE, phase_date=NOW.date(), at=NOW - timedelta(seconds=30), seconds=20)
    found = world.survey()
    assert found.open_window is not None
    assert [(one.job, one.failures) for one in found.backoffs] == [("phase", 1)]


def test_every_switch_is_a_cause_of_its_own(tmp_path: Path) -> None:
    world = Seeded(tmp_path, KLR_ORCHESTRATION_MODE="disabled")
    for name in ("killswitch", "maintenance_mode"):
        (tmp_path / name).touch()
    world.tick(NOW - timedelta(seconds=20))
    found = world.survey()
    assert found.mode is Mode.DISABLED
    causes = [cause.condition for cause in found.judgement.causes]
    assert causes[:3] == [Condition.DISABLED, Condition.HALTED, Condition.MAINTENANCE]


def test_since_is_when_it_began_where_that_is_known_else_when_it_was_first_seen(world: Seeded) -> None:
    world.tick(NOW - HOUR)
    (stale,) = world.survey().judgement.causes
    assert (stale.condition, stale.since) == (Condition.TICK_STALE, NOW - HOUR + timedelta(milliseconds=40))
    world.tick(NOW)
    world.db.run("pulse.condition_holds", condition="cycle_lost", since=to_text(NOW - 2 * HOUR), evidence="")
    world.cycle(CycleState.LOST)
    (lost,) = world.survey().judgement.causes
    assert (lost.condition, lost.since) == (Condition.CYCLE_LOST, NOW - 2 * HOUR)


def test_looking_writes_nothing_and_keeps_nobody_from_writing(tmp_path: Path) -> None:
    world = Seeded(tmp_path)
    world.tick(NOW - HOUR)
    reader = SqliteDatabase(str(world.home / "kloros.db"), read_only=True)
    with reader.transaction(looking=True):
        before = reader.rows("ticks.recent", limit=9)
        world.tick(NOW)
        assert len(reader.rows("ticks.recent", limit=9)) == len(before) == 1, "one look is of one instant"
    assert len(reader.rows("ticks.recent", limit=9)) == 2
    world.db.close()
    world.db = reader
    assert world.survey().judgement.verdict is Verdict.OK
    reader.close()


def test_telemetry_of_a_number_that_is_run_again_is_not_that_of_the_run_before(world: Seeded) -> None:
    number = world.cycle(lines=[{"joy": 1}])
    assert world.survey().cycles[0].series == {"joy": 1.0}
    products.begin(world.db, number, environment=[], revision=None)
    assert world.survey().cycles[0].series == {}


def test_the_document_is_json_and_repeats_the_judgement(world: Seeded) -> None:
    world.tick(NOW)
    world.cycle(CycleState.FAILED, lines=[{"joy": 1}], output=b"x")
    world.cycle(CycleState.RUNNING, origin=Origin(Cause.INTENT, "", intent="one.json"))
    shown = world.survey()
    document = json.loads(json.dumps(as_json(shown), allow_nan=False))
    judged = json.loads(json.dumps(health.as_json(shown.judgement)))
    assert {name: document[name] for name in judged} == judged
    assert document["cycles"][1]["result"] == "failed"
    assert document["cycles"][1]["series"] == {"joy": 1.0}
    assert document["summary"]["latest"] == 2


def fields(value: object, path: str = "") -> set[str]:
    """Name every field of a document, as the reference does."""
    if isinstance(value, dict) and path not in FREE:
        return set().union(*(fields(inside, f"{path}.{name}".lstrip(".")) for name, inside in value.items()))
    if isinstance(value, list):
        return set().union({path} if not value else set(), *(fields(one, f"{path}[]") for one in value))
    return {path}


FREE = (
    "cycles[].series",
    "summary.totals",
    "summary.means",
    "baseline.parameters",
    "threads.totals",
    "threads.unread",
    "threads.escalations",
    "wakes.funnel",
)
LIKE_OTHERS = ("active[]", "heartbeat.gaps[]", "failures[]", "window.open")


def accept(world: Seeded) -> None:
    """Let versions, a verdict, an entry of escrow and hints be there, too."""
    commit(world, 9, rate=0.01)
    conclude(world, 1, Tried.KEPT, 0.03)
    hold(world, "a" * 12, 2)
    advise(world, world.cycle(job=JobName.PHASE))


def tell(world: Seeded) -> None:
    """Let the bridge have told of a thread."""
    seat = Seat(agent_id="reviewer", last_read_seq=1, unread=1, heartbeat_at=None, session=None)
    told: dict[str, Any] = {"thread_id": "thr_1", "status": ThreadStatus.ACTIVE}
    line = Standing(**told, workspace_id="kloros", title="Retry", reason="", last_seq=2, updated_at=NOW, seats=(seat,))
    waits = Waits(**told, agent_id="reviewer", sender="executioner", since=NOW)
    found = Census(at=NOW, threads={ThreadStatus.ACTIVE: 1}, since={}, unread={}, waits=(waits,), shown=(line,))
    asyncio.run(Teller(world.place, Tally()).tell(found))


def wake_told(world: Seeded) -> None:
    """Let a supervisor have told of a trigger."""
    trigger = Wake(
        trigger_id="trg_1",
        workspace_id="kloros",
        thread_id="thr_1",
        agent_id="reviewer",
        reason="unread",
        prompt="",
        requested_by="kloros",
        created_at=NOW,
        due_at=NOW,
    )
    assert WakeTeller(world.place, holder="host 1").tell([trigger], Counted(), NOW)


def test_the_reference_has_each_field(world: Seeded) -> None:
    world.ticks(NOW - 10 * MINUTE, 3)
    world.cycle(CycleState.FAILED, at=NOW - MINUTE, lines=[{"joy": 1}], output=b"x")
    world.cycle(CycleState.RUNNING)
    promotions.see(world.db, "bad", promotion_id="bad", fitness=0.5, at=NOW)
    promotions.fail(world.db, ["bad"], cycle=1, reason="exit code 1", park_after=1, at=NOW)
    leave(world, "bad")
    opens, recorded = to_text(NOW - DAY), to_text(NOW)
    world.db.run(
        "phase_dates.record",
        local_date="2026-11-20",
        result="skipped",
        reason="host_down",
        evidence="",
        cycle=None,
        opens_at=opens,
        closes_at=opens,
        recorded_at=recorded,
    )
    accept(world)
    tell(world)
    wake_told(world)
    found = fields(as_json(replace(world.survey(), scope=WELL_LED)))
    page = Path(__file__).parents[2].joinpath("docs", "reference", "loop-health.md").read_text()
    table = page.split("## The document")[1].split("###")[0]
    told = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert len(told) == len(set(told))
    own = {name for name in found if not name.startswith(LIKE_OTHERS)} | {"failures[].tail"}
    assert own == {name for name in told if name not in LIKE_OTHERS}
    assert "failures[].tail" in found


def steps(path: str) -> int:
    """Count what SQLite does for one look, in hundreds of its instructions."""
    db = SqliteDatabase(path, read_only=True)
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    db._connection.set_progress_handler(count, 100)
    world_settings = Seeded(Path(path).parent).settings
    survey(world_settings, db, clock.now(), boot_id="b" * 36)
    db.close()
    return counted


def test_a_look_costs_the_same_in_a_store_that_is_twenty_times_as_large(tmp_path: Path) -> None:
    costs = []
    for times in (1, 20):
        folder = tmp_path / str(times)
        folder.mkdir()
        SqliteDatabase(str(folder / "kloros.db")).close()
        fill(str(folder / "kloros.db"), ticks=1500 * times, cycles=1100 * times)
        costs.append(steps(str(folder / "kloros.db")))
    assert costs[1] < 1.3 * costs[0]
