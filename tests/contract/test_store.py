"""What every store must do, whatever its engine; each adapter runs this same file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestration.cycles import ledger, products
from orchestration.cycles.backoff import Failures
from orchestration.cycles.cycle import Cause, Cycle, CycleEvent, CycleNumber, CycleState, JobName, Origin, Result
from orchestration.cycles.job import Job
from orchestration.errors import KlorosError, StoreEmpty, StoreOutdated, StoreUnreachable, Unwritable
from orchestration.store import sqlite
from orchestration.store.counters import count, gauges, observe
from orchestration.store.instants import from_text, to_text
from orchestration.store.opening import Place, copy_of, look, open_at, open_to_look
from orchestration.store.port import Database
from orchestration.store.sqlite import SqliteDatabase

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DREAM = Job(JobName.DREAM, ("true",), "", timedelta(minutes=30))
Open = Callable[[], Database]


@pytest.fixture
def reopen(kernel_place: Place) -> Open:
    return lambda: open_at(kernel_place)


@pytest.fixture
def db(reopen: Open) -> Iterator[Database]:
    opened = reopen()
    yield opened
    opened.close()


def queue(db: Database, token: str = "t1", cause: Cause = Cause.PROMOTIONS) -> CycleNumber:
    origin = Origin(cause, "tick-1", ("a", "b"), "topic", "intent.json")
    return ledger.enqueue(db, job=DREAM, origin=origin, token=token, now=NOON)


def claimed(db: Database, token: str = "t1") -> Cycle:
    queue(db, token)
    cycle = ledger.claim_next(db, runner="me", now=NOON)
    assert cycle is not None
    return cycle


def ended(db: Database, token: str, event: CycleEvent, at: datetime = NOON) -> Cycle:
    cycle = claimed(db, token)
    assert ledger.finish(db, cycle, event, Result(reason="because"), now=at)
    return cycle


def counted(db: Database) -> dict[tuple[str, str], float]:
    return {(str(r["name"]), str(r["labels"])): float(str(r["value"])) for r in db.rows("counters.all")}


def test_what_was_committed_is_there_after_closing(reopen: Open) -> None:
    first = reopen()
    with first.transaction():
        number = queue(first)
    first.close()
    second = reopen()
    cycle = ledger.get(second, number)
    assert cycle is not None
    assert cycle.origin == Origin(Cause.PROMOTIONS, "tick-1", ("a", "b"), "topic", "intent.json")
    assert (cycle.state, cycle.queued_at, cycle.timeout) == (CycleState.QUEUED, NOON, timedelta(minutes=30))
    second.close()


def test_a_transaction_that_raises_leaves_nothing(db: Database) -> None:
    def fail_halfway() -> None:
        with db.transaction():
            queue(db)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert ledger.recent(db, 10) == []


def test_numbers_ascend_from_one_and_are_never_reused(db: Database) -> None:
    assert [queue(db, token) for token in ("x", "y", "z")] == [1, 2, 3]


def test_a_cycle_is_claimed_once(db: Database, reopen: Open) -> None:
    queue(db)
    other = reopen()
    assert ledger.claim_next(other, runner="other", now=NOON) is not None
    assert ledger.claim_next(db, runner="me", now=NOON) is None
    other.close()


def test_the_oldest_queued_cycle_is_claimed_first(db: Database) -> None:
    queue(db, "first")
    queue(db, "second")
    cycle = ledger.claim_next(db, runner="me", now=NOON)
    assert cycle is not None
    assert cycle.token == "first"


def test_a_cycle_ends_once_and_is_counted_once(db: Database) -> None:
    cycle = claimed(db)
    assert ledger.finish(db, cycle, CycleEvent.SUCCEED, Result(reason="done"), now=NOON + timedelta(seconds=5))
    assert not ledger.finish(db, cycle, CycleEvent.LOSE, Result(reason="gone"), now=NOON)
    stored = ledger.get(db, cycle.cycle)
    assert stored is not None
    assert (stored.state, stored.result) == (CycleState.SUCCEEDED, Result(reason="done"))
    assert counted(db)["kloros_cycles_total", 'job="dream",result="succeeded"'] == 1
    assert counted(db)["kloros_cycle_duration_seconds_sum", 'job="dream"'] == 5


def test_an_event_that_the_lifecycle_forbids_is_a_defect(db: Database) -> None:
    queue(db)
    (cycle,) = ledger.active(db)
    with pytest.raises(ValueError, match="can't succeed"):
        ledger.finish(db, cycle, CycleEvent.SUCCEED, Result(reason=""), now=NOON)


def test_a_finished_cycle_is_unsettled_until_it_is_settled_once(db: Database) -> None:
    cycle = ended(db, "t", CycleEvent.FAIL)
    assert [one.cycle for one in ledger.unsettled(db)] == [cycle.cycle]
    assert ledger.settle(db, cycle.cycle, now=NOON)
    assert not ledger.settle(db, cycle.cycle, now=NOON)
    assert ledger.unsettled(db) == []


def test_cancelling_is_asked_for_once_and_only_of_active_cycles(db: Database) -> None:
    cycle = claimed(db)
    assert ledger.ask_cancel(db, cycle.cycle, now=NOON)
    assert not ledger.ask_cancel(db, cycle.cycle, now=NOON + timedelta(seconds=1))
    done = ended(db, "u", CycleEvent.FAIL)
    assert not ledger.ask_cancel(db, done.cycle, now=NOON)


def test_failures_in_a_row_end_at_the_last_success_and_count_cancelled_ones(db: Database) -> None:
    ended(db, "1", CycleEvent.FAIL)
    ended(db, "2", CycleEvent.SUCCEED)
    ended(db, "3", CycleEvent.TIME_OUT)
    ended(db, "4", CycleEvent.CANCEL, NOON + timedelta(minutes=1))
    failures = ledger.failures_in_a_row(db, JobName.DREAM, Cause.PROMOTIONS)
    assert failures == Failures(2, NOON + timedelta(minutes=1))
    assert ledger.failures_in_a_row(db, JobName.DREAM, Cause.INTENT) == Failures(0, None)


def test_counters_add_up_and_histograms_are_cumulative(db: Database) -> None:
    count(db, "a_total", kind="x")
    count(db, "a_total", 2, kind="x")
    for value in (0.5, 3.0):
        observe(db, "h_seconds", value, buckets=(1.0, 2.0))
    assert counted(db) == {
        ("a_total", 'kind="x"'): 3,
        ("h_seconds_bucket", 'le="+Inf"'): 2,
        ("h_seconds_bucket", 'le="1.0"'): 1,
        ("h_seconds_bucket", 'le="2.0"'): 1,
        ("h_seconds_count", ""): 2,
        ("h_seconds_sum", ""): 3.5,
    }


def test_instants_keep_every_microsecond_and_sort_as_text() -> None:
    instants = [NOON + timedelta(microseconds=n) for n in (0, 1, 999_999, 1_000_000)]
    assert [from_text(to_text(instant)) for instant in instants] == instants
    assert sorted(map(to_text, instants)) == list(map(to_text, instants))
    with pytest.raises(ValueError, match="naive"):
        to_text(NOON.replace(tzinfo=None))


def _enqueue_many(place: Place, start: int) -> None:
    db = open_at(place)
    for number in range(start, start + 25):
        with db.transaction():
            queue(db, str(number))
    db.close()


def test_many_writers_at_once_lose_nothing(kernel_place: Place) -> None:
    writers = [get_context("spawn").Process(target=_enqueue_many, args=(kernel_place, n * 100)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    db = open_at(kernel_place)
    assert sorted(cycle.cycle for cycle in ledger.recent(db, 1000)) == list(range(1, 101))
    db.close()


def test_a_reader_sees_every_commit_and_can_write_nothing(db: Database, kernel_place: Place) -> None:
    reader = open_at(kernel_place, read_only=True)
    with db.transaction():
        queue(db)
    assert len(ledger.recent(reader, 10)) == 1
    with pytest.raises(KlorosError):
        queue(reader, "u")
    reader.close()


def test_a_look_sees_one_moment_and_keeps_nobody_from_writing(db: Database, reopen: Open) -> None:
    looking = reopen()
    with looking.transaction(looking=True):
        assert ledger.recent(looking, 10) == []
        queue(db)
        assert ledger.recent(looking, 10) == []
    assert len(ledger.recent(looking, 10)) == 1
    looking.close()


def test_a_snapshot_sees_one_moment_and_changes_nothing(db: Database, kernel_place: Place) -> None:
    queue(db)

    def see(seen: Database) -> int:
        with seen.transaction(looking=True):
            first = ledger.recent(seen, 10)
        queue(db, "meanwhile")
        assert ledger.recent(seen, 10) == first
        with pytest.raises(KlorosError, match="only looked at"):
            seen.run("facts.set", name="a", value="b")
        return len(first)

    assert look(kernel_place, see) == 1
    assert len(ledger.recent(db, 10)) == 2


def test_a_copy_has_what_was_there_and_leaves_it_alone(db: Database, kernel_place: Place) -> None:
    queue(db)
    count(db, "a_total", kind="x")
    for name in ("locks.unreadable", "phase.accounted_through"):  # one that each host has for itself, one of the scope
        db.run("facts.set", name=name, value=name)
    copy = copy_of(kernel_place)
    queue(copy, "only in memory")
    assert len(ledger.recent(copy, 10)) == 2
    assert counted(copy) == counted(db)
    for name in ("locks.unreadable", "phase.accounted_through"):
        assert [row["value"] for row in copy.rows("facts.get", name=name)] == [name]
    copy.close()
    assert len(ledger.recent(db, 10)) == 1


def test_what_is_not_there_yet_reads_as_no_store(kernel_place: Place) -> None:
    with pytest.raises(StoreEmpty):
        look(kernel_place, lambda seen: seen.rows("facts.get", name="a"))
    scope = SimpleNamespace(name=kernel_place.scope, host=kernel_place.here)
    folder = os.path.dirname(kernel_place.path)
    nothing = open_to_look(SimpleNamespace(state_dir=folder, database_url=kernel_place.url, scope=scope))
    assert ledger.recent(nothing, 10) == []
    nothing.close()


@pytest.mark.parametrize(
    "text", ["", "it's", "back\\slash", "''", "line\nline", "ü 🌍 \u2028", "%s :name $1 {}", "-- no comment"]
)
def test_text_comes_back_as_it_went(db: Database, text: str) -> None:
    db.run("facts.set", name=text, value=text)
    assert [row["value"] for row in db.rows("facts.get", name=text)] == [text]


@pytest.mark.parametrize("value", [0.0, -1.5, 1e300, 0.1, 123456789.123456])
def test_numbers_come_back_as_they_went(db: Database, value: float) -> None:
    gauges(db, n=value)
    (row,) = db.rows("counters.all")
    assert (row["value"], list(row.keys())[:2]) == (value, ["name", "labels"])


def test_a_transaction_that_fails_leaves_nothing(db: Database) -> None:
    def write(end: Callable[[], object]) -> None:
        with db.transaction():
            queue(db, "kept?")
            end()

    with pytest.raises(KeyError):
        write(lambda: dict[str, int]()["stop"])
    assert ledger.recent(db, 10) == []
    with pytest.raises(KlorosError):
        write(lambda: queue(db, "kept?"))
    assert ledger.recent(db, 10) == []
    queue(db)


class TestSqliteFile:
    """What only a file can get wrong."""

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Open:
        return lambda: SqliteDatabase(str(tmp_path / "kloros.db"))

    def test_a_newer_schema_is_refused_by_name(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "kloros.db") as raw:
            raw.execute("PRAGMA user_version = 99")
        raw.close()
        with pytest.raises(StoreUnreachable, match="schema version 99"):
            SqliteDatabase(str(tmp_path / "kloros.db"))

    @staticmethod
    def make_older(path: Path, version: int = 1) -> None:
        migrations = sorted((Path(sqlite.__file__).parent / "migrations").glob("*.sql"))[:version]
        with sqlite3.connect(path) as raw:
            raw.executescript("".join(one.read_text() for one in migrations) + f"PRAGMA user_version = {version};")
            raw.execute("INSERT INTO facts VALUES ('kept', 'yes')")
            raw.execute(
                "INSERT INTO cycles (job, state, token, cause, origin, command, timeout_seconds, queued_at)"
                " VALUES ('dream', 'queued', 't1', 'promotions', '{}', '[]', 60, '2026-11-21T12:00:00Z')"
            )
        raw.close()

    def test_a_reader_of_an_older_release_s_store_is_told_so_and_may_take_a_copy(self, tmp_path: Path) -> None:
        self.make_older(tmp_path / "kloros.db")
        before = (tmp_path / "kloros.db").read_bytes()
        with pytest.raises(StoreOutdated, match="schema version 1, and this program works with"):
            SqliteDatabase(str(tmp_path / "kloros.db"), read_only=True)
        copy = copy_of(Place(str(tmp_path / "kloros.db")))
        assert [row["value"] for row in copy.rows("facts.get", name="kept")] == ["yes"]
        assert copy.rows("pulse.conditions") == []
        copy.close()
        assert (tmp_path / "kloros.db").read_bytes() == before

    def test_a_store_of_an_older_release_keeps_its_rows(self, tmp_path: Path) -> None:
        self.make_older(tmp_path / "kloros.db")
        db = SqliteDatabase(str(tmp_path / "kloros.db"))
        assert [row["value"] for row in db.rows("facts.get", name="kept")] == ["yes"]
        assert products.get(db, CycleNumber(1)) == products.Products()
        db.close()

    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "kloros.db").write_text("not a database at all, but long enough to look at" * 10)
        with pytest.raises(StoreUnreachable, match=r"kloros\.db"):
            SqliteDatabase(str(tmp_path / "kloros.db"))

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(Unwritable, match="absent"):
            SqliteDatabase(str(tmp_path / "absent" / "kloros.db"))

    def test_a_copy_changes_no_byte_and_makes_no_file(self, tmp_path: Path, reopen: Open) -> None:
        db = reopen()
        with db.transaction():
            queue(db)
        db.close()
        before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
        copy = copy_of(Place(str(tmp_path / "kloros.db")))
        queue(copy, "only in memory")
        assert len(ledger.recent(copy, 10)) == 2
        copy.close()
        assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before

    def test_a_copy_has_the_newest_of_what_only_history_needs(self, tmp_path: Path, reopen: Open) -> None:
        db = reopen()
        with sqlite3.connect(tmp_path / "kloros.db") as raw:
            raw.executemany(
                "INSERT INTO ticks VALUES (?, ?, ?, '', '', 'noop', 0, NULL, NULL, '[]')",
                [(tick, str(tick), f"{tick:06}") for tick in range(1, 12_001)],
            )
            raw.execute("INSERT INTO products (cycle) VALUES (1)")
            raw.execute("INSERT INTO facts VALUES ('a', 'b')")
        raw.close()
        db.close()
        copy = copy_of(Place(str(tmp_path / "kloros.db")))
        assert [row["tick"] for row in copy.rows("ticks.recent", limit=-1)] == list(range(12_000, 2_000, -1))
        assert copy.rows("products.get", cycle=1) == []
        assert copy.rows("facts.get", name="a")[0]["value"] == "b"
        copy.close()

    @pytest.mark.parametrize("version", range(1, sqlite.SCHEMA_VERSION))
    def test_a_copy_of_every_older_schema_is_whole(self, tmp_path: Path, version: int) -> None:
        self.make_older(tmp_path / "kloros.db", version)
        copy = copy_of(Place(str(tmp_path / "kloros.db")))
        assert [row["value"] for row in copy.rows("facts.get", name="kept")] == ["yes"]
        assert len(copy.rows("cycles.active")) == 1
        assert copy.rows("bundles.pending") == []
        copy.close()

    def test_a_copy_made_while_others_write_is_whole(self, tmp_path: Path) -> None:
        path = str(tmp_path / "kloros.db")
        SqliteDatabase(path).close()
        writer = get_context("spawn").Process(target=_enqueue_many, args=(Place(path), 0))
        writer.start()
        while writer.is_alive():
            copy = copy_of(Place(path))
            assert copy.rows("facts.get", name="absent") == []
            numbers = sorted(cycle.cycle for cycle in ledger.recent(copy, 1000))
            assert numbers == list(range(1, len(numbers) + 1))
            copy.close()
        writer.join()
        assert writer.exitcode == 0
