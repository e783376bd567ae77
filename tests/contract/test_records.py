"""The other pages' documents over a real store: lists by cursor, one cycle, one tick, promotions, intents, the calendar."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from orchestration.cycles import products
from orchestration.cycles.cycle import Cause, CycleNumber, CycleState, JobName, Origin
from orchestration.cycles.inventory import File, Inventory
from orchestration.errors import Usage
from orchestration.exits import Exit
from orchestration.host.files import move_no_replace
from orchestration.intents.document import parse
from orchestration.intents.drop import write_intent
from orchestration.promotions import ledger as promotions
from orchestration.pulse.asked import LONGEST_REASON
from orchestration.pulse.dashboard import pages
from orchestration.pulse.dashboard.place import Place
from orchestration.pulse.records import calendar_view, cycle_detail, cycle_page, intents_view, promotions_view, tick_detail
from orchestration.pulse.views import MOST_POINTS, CycleDetail, CycleOrder, CycleQuery
from orchestration.store import opening
from orchestration.store.counters import count
from orchestration.store.instants import to_text
from orchestration.store.port import Database
from tests.contract.seeded import NOW, Seeded

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def world(tmp_path: Path, kernel_db: Database, ready_place: opening.Place) -> Seeded:
    return Seeded(tmp_path, kernel_db, ready_place)


@pytest.fixture
def many(world: Seeded) -> Seeded:
    """Forty cycles: three in four of D-REAM, one in four did not succeed, durations that repeat; one is lost, one runs."""
    for number in range(1, 39):
        job = JobName.PHASE if number % 4 == 0 else JobName.DREAM
        state = CycleState.FAILED if number % 4 == 1 else CycleState.SUCCEEDED
        origin = Origin(Cause.INTENT, "", topic=f"Topic {number}", intent=f"{number}.json")
        world.cycle(state, job=job, seconds=number % 7, reason=f"said {number}", origin=origin)
    world.cycle(CycleState.LOST)
    world.cycle(CycleState.RUNNING)
    return world


def numbers(world: Seeded, query: CycleQuery) -> list[int]:
    """Turn page after page to the end."""
    found: list[int] = []
    for _ in range(100):
        page = cycle_page(world.db, query)
        assert len(page.lines) <= query.limit
        found += [line.cycle for line in page.lines]
        if page.next_cursor is None:
            return found
        query = replace(query, cursor=page.next_cursor)
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("limit", [1, 7, 40, 500])
@pytest.mark.parametrize("job", [None, JobName.PHASE])
@pytest.mark.parametrize("state", [None, CycleState.FAILED, CycleState.SUCCEEDED, CycleState.TIMED_OUT])
def test_pages_give_each_cycle_once_in_order(
    many: Seeded, limit: int, job: JobName | None, state: CycleState | None
) -> None:
    expected = [
        line
        for line in many.survey(cycles=100).cycles
        if (job is None or line.job is job) and (state is None or line.state is state)
    ]
    for order in CycleOrder:
        found = numbers(many, CycleQuery(job=job, state=state, order=order, limit=limit))
        rising = order in (CycleOrder.OLDEST, CycleOrder.SHORTEST)
        timed = order in (CycleOrder.LONGEST, CycleOrder.SHORTEST)
        lines = [line for line in expected if line.seconds is not None or not timed]
        lines.sort(key=lambda line: (line.seconds if timed else 0, line.cycle), reverse=not rising)
        assert found == [line.cycle for line in lines]
        total = cycle_page(many.db, CycleQuery(job=job, state=state, order=order)).total
        assert total == len(lines)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("said 17", [17]),
        ("TOPIC 3", [38, 37, 36, 35, 34, 33, 32, 31, 30, 3]),
        ("40", [40]),
        ("33.json", [33]),
        ("%", []),
        ("'", []),
    ],
)
def test_a_text_is_looked_for_where_people_remember_it(many: Seeded, text: str, found: list[int]) -> None:
    assert numbers(many, CycleQuery(text=text, limit=4)) == found
    assert cycle_page(many.db, CycleQuery(text=text)).total is None


@pytest.mark.parametrize(
    "query",
    [
        CycleQuery(limit=0),
        CycleQuery(limit=501),
        CycleQuery(text="x" * 201),
        CycleQuery(cursor="x"),
        CycleQuery(cursor="-1"),
        CycleQuery(cursor="1.5:3"),
        CycleQuery(cursor="3", order=CycleOrder.LONGEST),
        CycleQuery(cursor="9" * 30),
    ],
)
def test_a_query_that_makes_no_sense_is_a_usage_error(many: Seeded, query: CycleQuery) -> None:
    with pytest.raises(Usage):
        cycle_page(many.db, query)


def detail(world: Seeded, number: int) -> CycleDetail:
    found = cycle_detail(world.settings, world.db, number)
    assert found is not None
    return found


def test_one_cycle_has_everything(world: Seeded) -> None:
    tick = world.tick(NOW - HOUR, decision="dream_cycle", cycle=1)
    for stem in ("one", "two"):
        promotions.see(world.db, stem, promotion_id=stem, fitness=0.5, at=NOW - 2 * HOUR)
    origin = Origin(Cause.PROMOTIONS, tick.tick_id, promotions=("one", "two"))
    number = world.cycle(origin=origin, lines=[{"joy": n, "ts": 1795248000 + n} for n in range(5)], output=b"hello\n")
    promotions.answer(world.db, "one", promotion_id="one", accepted=True, reason="fitter", fitness=0.9, cycle=number, at=NOW)
    found = detail(world, number)
    assert found.asked_by is not None
    assert (found.asked_by.tick_id, found.asked_by.findings) == (tick.tick_id, tick.findings)
    assert [(one.stem, one.state, one.fitness, one.reason) for one in found.answers] == [
        ("one", "accepted", 0.9, "fitter"),
        ("two", "", None, ""),
    ]
    assert found.artifacts is not None
    assert [(one.path, one.size, one.present) for one in found.artifacts] == [
        ("logs/output.log", 6, True),
        ("logs/telemetry.jsonl", 145, True),
    ]
    assert all(one.sha256 for one in found.artifacts)
    assert [(one.path, one.tail, one.truncated) for one in found.logs] == [("logs/output.log", "hello", False)]
    (joy,) = found.telemetry
    assert (joy.name, joy.last, joy.count, joy.low, joy.high, joy.mean) == ("joy", 4.0, 5, 0.0, 4.0, 2.0)
    assert [(point.line, point.value) for point in joy.points] == [(n + 1, float(n)) for n in range(5)]
    assert joy.points[0].at == datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert (found.environment, found.revision, found.exit_code) == (("PATH",), "abc", 0)
    assert json.loads(found.manifest)["cycle"] == number


def test_a_running_cycle_has_what_it_has_written_so_far_and_a_deadline(world: Seeded) -> None:
    number = world.cycle(CycleState.RUNNING, at=NOW - MINUTE)
    logs = Path(detail(world, number).folder) / "logs"
    logs.mkdir(parents=True)
    (logs / "output.log").write_text("so far")
    (logs / "t.jsonl").write_text('{"joy": 1}\n{"jo')
    found = detail(world, number)
    assert (found.artifacts, found.deadline, found.logs[0].tail) == (None, NOW + 59 * MINUTE, "so far")
    assert [(one.name, one.last) for one in found.telemetry] == [("joy", 1.0)]
    assert found.damaged_lines == 1


def test_a_long_series_is_thinned_out_and_keeps_its_ends(world: Seeded) -> None:
    number = world.cycle(lines=[{"x": n} for n in range(12_345)])
    (series,) = detail(world, number).telemetry
    assert (series.count, series.points[0].value, series.points[-1].value) == (12_345, 0.0, 12_344.0)
    assert MOST_POINTS / 3 < len(series.points) <= MOST_POINTS
    assert [point.line for point in series.points] == sorted({point.line for point in series.points})


def test_files_that_were_removed_leave_what_the_store_knows(world: Seeded) -> None:
    number = world.cycle(lines=[{"joy": 3}], output=b"gone")
    folder = Path(detail(world, number).folder)
    for file in (folder / "logs").iterdir():
        file.unlink()
    found = detail(world, number)
    assert found.artifacts is not None
    assert [one.present for one in found.artifacts] == [False, False]
    assert (found.logs, [(one.last, one.points) for one in found.telemetry]) == ((), [(3.0, ())])


def test_a_cycle_that_left_very_much_is_bounded(world: Seeded) -> None:
    number = world.cycle()
    files = tuple(File(f"artifacts/{n:05d}\udcff", 1, "0" * 64, "text/plain") for n in range(5000))
    with world.db.transaction():
        products.end(world.db, CycleNumber(number), Inventory(files, 7))
    found = detail(world, number)
    assert found.artifacts is not None
    assert (len(found.artifacts), found.omitted) == (1000, 4007)
    assert found.artifacts[0].path == "artifacts/00000\\xff"
    assert len(found.manifest) < 300_000
    found.manifest.encode()


@pytest.mark.parametrize("number", [0, -1, 2, 10**30])
def test_a_cycle_that_never_was_is_none(world: Seeded, number: int) -> None:
    world.cycle()
    assert cycle_detail(world.settings, world.db, number) is None


def test_one_tick_is_told_as_it_was_then(world: Seeded) -> None:
    world.tick(NOW - 2 * MINUTE)
    findings = [("active_cycle", "no_active_cycle", "none"), ("intents", "no_intents", "none waits")]
    tick = world.tick(NOW - MINUTE, findings=findings)
    world.tick(NOW, decision="skipped", exit_code=Exit.LOCK_HELD)
    for name in (tick.tick_id, str(tick.tick)):
        found = tick_detail(world.db, name)
        assert found is not None
        assert found.tick.findings == tuple(findings)
        assert (found.counted, found.previous, found.following, found.cycle) == ((1,), 1, 3, None)


@pytest.mark.parametrize("name", ["", "0", "99", "1abc", "1 OR 1=1", "x-y", "9" * 400, "'"])
def test_a_tick_that_never_was_is_none(world: Seeded, name: str) -> None:
    world.tick(NOW)
    assert tick_detail(world.db, name) is None


def test_the_tick_that_started_a_cycle_shows_it(world: Seeded) -> None:
    number = world.cycle()
    found = tick_detail(world.db, str(world.tick(NOW, decision="dream_cycle", cycle=number).tick))
    assert found is not None
    assert found.cycle is not None
    assert found.cycle.cycle == number


def test_promotions_without_an_answer_come_oldest_first_and_new_ones_last(world: Seeded) -> None:
    (world.home / "promotions").mkdir()
    for age, stem in enumerate(("b-older", "a-newer", "parked", "answered")):
        promotions.see(world.db, stem, promotion_id=f"id {stem}", fitness=0.5, at=NOW - timedelta(hours=9 - age))
        if stem != "answered":
            (world.home / "promotions" / f"{stem}.json").write_text("{}")
    (world.home / "promotions" / "brand-new.json").write_text("{}")
    promotions.fail(world.db, ["parked"], cycle=1, reason="exit code 1", park_after=1, at=NOW)
    promotions.answer(
        world.db, "answered", promotion_id="a", accepted=False, reason="worse", fitness=None, cycle=None, at=NOW
    )
    found = promotions_view(world.settings, world.db)
    assert [(one.stem, one.state) for one in found.waiting] == [
        ("b-older", "unacked"),
        ("a-newer", "unacked"),
        ("parked", "parked"),
        ("brand-new", "new"),
    ]
    assert [(one.stem, one.reason) for one in found.answered] == [("answered", "worse")]
    assert found.totals == {"unacked": 2, "parked": 1, "accepted": 0, "rejected": 1}
    assert (found.omitted, found.unreadable) == (0, "")


def test_a_promotions_folder_that_is_none_is_told(world: Seeded) -> None:
    (world.home / "promotions").write_text("a file")
    found = promotions_view(world.settings, world.db)
    assert "can't be listed" in found.unreadable
    assert found.waiting == ()


def test_intents_wait_in_the_order_of_their_turn(world: Seeded) -> None:
    for name, priority in (("low.json", 1), ("high.json", 9)):
        world.db.run(
            "intents.remember",
            name=name,
            content_sha=name,
            intent_type="curiosity_x",
            priority=priority,
            seen_at=to_text(NOW - HOUR),
        )
    world.db.run(
        "intents.conclude",
        name="done.json",
        content_sha="x",
        intent_type="suggest_x",
        priority=5,
        status="processed",
        reason="noted as suggestion",
        seen_at=to_text(NOW - 2 * HOUR),
        decided_at=to_text(NOW - HOUR),
        cycle=None,
    )
    count(world.db, "kloros_intents_total", status="processed")
    found = intents_view(world.settings, world.db)
    assert [(one.name, one.status, one.decided_at) for one in found.waiting] == [
        ("high.json", "pending", None),
        ("low.json", "pending", None),
    ]
    assert [(one.name, one.reason, one.decided_at) for one in found.decided] == [
        ("done.json", "noted as suggestion", NOW - HOUR)
    ]
    assert (found.limit, found.totals["processed"]) == (50, 1)


NASTY = "</pre><script>alert(1)</script> \x1b[31m\u202e ' \" {{ 7 * 7 }}"


def drop(world: Seeded, reason: str, *, by: str = "klorosctl: ada") -> Path:
    """Leave an intent as `klorosctl intents add` does."""
    inbox = world.home / "intents"
    inbox.mkdir(exist_ok=True)
    path = write_intent(
        str(inbox), intent_type="trigger_dream", priority=5, reason=reason, data={}, emitted_by=by, now=NOW - HOUR
    )
    return Path(path)


def taken(world: Seeded, path: Path) -> tuple[CycleNumber, Path]:
    """Have a cycle run for it, and its file moved to those that were processed."""
    number = world.cycle(origin=Origin(Cause.INTENT, "", intent=path.name))
    world.db.run(
        "intents.conclude",
        name=path.name,
        content_sha=parse(path.read_bytes()).content_sha,
        intent_type="trigger_dream",
        priority=5,
        status="processed",
        reason=f"started cycle {number}",
        seen_at=to_text(NOW - HOUR),
        decided_at=to_text(NOW - HOUR + number * MINUTE),
        cycle=number,
    )
    return number, Path(move_no_replace(str(path), str(world.home / "intents/processed/processed"), path.name))


def given(world: Seeded, number: int) -> tuple[str, str]:
    found = detail(world, number)
    listed = [one for one in intents_view(world.settings, world.db).decided if one.cycle == number]
    assert [(one.intent_reason, one.emitted_by) for one in listed] == [(found.intent_reason, found.emitted_by)]
    return found.intent_reason, found.emitted_by


def test_the_reason_that_somebody_gave_stands_with_the_intent_and_its_cycle(world: Seeded) -> None:
    place = Place(served=True)
    number, _ = taken(world, drop(world, NASTY, by=NASTY))
    assert given(world, number) == (NASTY, NASTY)
    for page in (
        pages.cycle(detail(world, number), place, now=NOW),
        pages.intents(intents_view(world.settings, world.db), place, now=NOW),
    ):
        assert page.count("&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;") == 2
        assert [part for part in ("<script>alert", "\x1b", "\u202e") if part in page] == []


def test_the_reason_is_that_of_this_intent_and_not_of_its_namesakes(world: Seeded) -> None:
    first, _ = taken(world, drop(world, "one"))
    name = detail(world, first).intent
    later = [drop(world, reason) for reason in ("two", "three")]
    others = [taken(world, path.rename(path.with_name(name)))[0] for path in later]
    assert [given(world, number)[0] for number in (first, *others)] == ["one", "two", "three"]


def test_an_intent_that_waits_tells_its_reason_too(world: Seeded) -> None:
    path = drop(world, "because")
    world.db.run(
        "intents.remember",
        name=path.name,
        content_sha=parse(path.read_bytes()).content_sha,
        intent_type="trigger_dream",
        priority=5,
        seen_at=to_text(NOW),
    )
    assert [(one.intent_reason, one.emitted_by) for one in intents_view(world.settings, world.db).waiting] == [
        ("because", "klorosctl: ada")
    ]


@pytest.mark.parametrize("kind", ["missing", "damaged", "fifo", "link", "folder", "deep", "large", "other"])
def test_a_file_that_is_not_the_intent_any_more_tells_nothing_and_breaks_nothing(world: Seeded, kind: str) -> None:
    number, path = taken(world, drop(world, "because"))
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "damaged":
            path.write_bytes(content[:-20])
        case "fifo":
            os.mkfifo(path)
        case "link":
            (world.home / "elsewhere").write_bytes(content)
            path.symlink_to(world.home / "elsewhere")
        case "folder":
            path.mkdir()
        case "deep":
            path.write_bytes(b"[" * 500_000)
        case "large":
            path.write_bytes(content + b" " * (1 << 20))
        case "other":
            path.write_bytes(content.replace(b"because", b"whyever"))
    assert given(world, number) == ("", "")


def test_a_reason_of_a_megabyte_is_cut_and_many_of_them_are_not_all_read(world: Seeded) -> None:
    made = [taken(world, drop(world, f"{one}" + "x" * 1_000_000))[0] for one in range(10)]
    found = {one.cycle: len(one.intent_reason) for one in intents_view(world.settings, world.db).decided}
    assert [found[number] for number in made] == [0, 0] + [LONGEST_REASON + 2] * 8
    assert len(detail(world, made[0]).intent_reason) == LONGEST_REASON + 2


def test_the_calendar_has_every_date_with_its_instants_over_a_clock_change(tmp_path: Path) -> None:
    hours = {"KLR_PHASE_WINDOW_OPENS": "01:30:00", "KLR_PHASE_WINDOW_CLOSES": "04:00:00"}
    world = Seeded(tmp_path, **hours, KLR_PHASE_TIME_ZONE="America/New_York")
    now = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
    found = calendar_view(world.settings, world.db, now, days=4)
    assert [(day.window.date, (day.window.closes - day.window.opens) / HOUR) for day in found.days] == [
        (date(2026, 11, 3), 2.5),
        (date(2026, 11, 2), 2.5),
        (date(2026, 11, 1), 3.5),  # 01:30 EDT to 04:00 EST
        (date(2026, 10, 31), 2.5),
        (date(2026, 10, 30), 2.5),
    ]
    assert found.days[1].window.opens - found.days[2].window.opens == 25 * HOUR
    assert found.time_zone == "America/New_York"


def test_a_date_shows_what_became_of_it_and_the_window_that_it_had(world: Seeded) -> None:
    number = world.cycle(job=JobName.PHASE, phase_date=date(2026, 11, 20))
    opens = datetime(2026, 11, 20, 1, tzinfo=UTC)  # of earlier settings
    world.db.run(
        "phase_dates.record",
        local_date="2026-11-20",
        result="succeeded",
        reason="window",
        evidence="cycle 1 succeeded",
        cycle=number,
        opens_at=to_text(opens),
        closes_at=to_text(opens + HOUR),
        recorded_at=to_text(NOW),
    )
    found = calendar_view(world.settings, world.db, NOW, days=3)
    assert [day.window.date.day for day in found.days] == [22, 21, 20, 19]
    assert [day.outcome is None for day in found.days] == [True, True, False, True]
    assert (found.days[2].window.opens, found.days[2].cycles) == (opens, (number,))
    assert found.totals == {"succeeded": 1, "failed": 0, "skipped": 0}


@pytest.mark.parametrize(("days", "shown"), [(0, 2), (1, 2), (100_000, 401)])
def test_a_calendar_is_never_endless(world: Seeded, days: int, shown: int) -> None:
    assert len(calendar_view(world.settings, world.db, NOW, days=days).days) == shown
