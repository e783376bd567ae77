"""What one host remembers is taken over into a scope row by row, and a scope's rows are copied for explaining as whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from orchestration.errors import KlorosError
from orchestration.store import kernel_rows
from orchestration.store.opening import Place, copy_of
from orchestration.store.postgres_database import PostgresDatabase
from orchestration.store.postgres_join import CopyDiffers, is_wanted, join
from orchestration.store.sqlite import SqliteDatabase
from tests.contract.postgres import Cluster
from tests.contract.test_kernel_queries import ASKED, NAMES, RARELY, World

pytestmark = pytest.mark.xdist_group("postgres")

NOT_COPIED_WHOLE = {"iterations", "products"}
NAMED_ANEW = {"promotions", "legacy_acks", "escrow", "intents", "cycles"}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with rows in every table of the kernel; all that ran is settled."""
    path = tmp_path_factory.mktemp("history") / "kloros.db"
    world, db = World(7), SqliteDatabase(str(path))
    for _ in range(25):
        names = [name for name in NAMES if name not in RARELY]
        world.random.shuffle(names)
        world.note(db.rows("cycles.recent", limit=1000))
        with db.transaction():
            for name in names:
                db.rows(name, **ASKED[name](world))
    db.connection.execute("UPDATE cycles SET settled_at = queued_at, host = CASE state WHEN 'queued' THEN '' ELSE 'one' END")
    db.connection.execute("UPDATE baseline_versions SET retired_at = '2026-11-21' WHERE version = 1 AND written = 1")
    db.close()
    return path


@pytest.fixture
def place(history: Path, tmp_path: Path, cluster: Cluster) -> Place:
    path = tmp_path / "kloros.db"
    path.write_bytes(history.read_bytes())
    return Place(str(path), cluster.new_database(), here="one")


def differing(path: str, place: Place) -> dict[str, str]:
    """Say of each table of the kernel which row is the first to differ."""
    with closing(sqlite3.connect(path)) as file, closing(PostgresDatabase(place.url, here=place.here)) as db:
        there = kernel_rows.tables_of(db.connection)
        names = kernel_rows.names_of(file, there)
        assert len(names) > 20
        return {name: kernel_rows.difference(file, db.connection, name, there[name], place.here) for name in names}


def test_every_row_comes_over_and_files_are_named_as_in_the_mirror(place: Place) -> None:
    moved = join(place)
    assert {name for name, rows in moved.items() if rows} >= NAMED_ANEW | {"ticks", "facts", "counters", "iterations"}
    with closing(SqliteDatabase(place.path)) as own:
        own.run("facts.set", name="store.moved_to", value="")
        for table, column in (("promotions", "stem"), ("legacy_acks", "file_name"), ("intents", "name"), ("escrow", "stem")):
            own.connection.execute(f"UPDATE {table} SET {column} = 'one@' || {column} WHERE {column} <> ''")
        own.connection.execute("DELETE FROM facts WHERE name = 'store.moved_to'")
    assert {name: row for name, row in differing(place.path, place).items() if row and name != "cycles"} == {}
    with closing(PostgresDatabase(place.url, here="one")) as db:
        tried = [str(row["origin"]) for row in db.rows("cycles.recent", limit=1000) if "alpha" in str(row["origin"])]
        assert tried
        assert all('"one@alpha"' in origin for origin in tried)


def test_what_was_taken_over_is_not_taken_again(place: Place) -> None:
    assert is_wanted(place.path)
    join(place)
    assert not is_wanted(place.path)
    assert join(place) == {}
    with psycopg.connect(place.url) as connection, closing(SqliteDatabase(place.path)) as own:
        assert connection.execute("SELECT count(*) FROM ticks").fetchone() == (len(own.rows("ticks.recent", limit=-1)),)


def test_what_a_host_wrote_of_baseline_and_escrow_is_not_written_anew(place: Place) -> None:
    with closing(SqliteDatabase(place.path)) as own:
        versions = [row["version"] for row in own.rows("baseline.unwritten")]
        entries = [row["entry"] for row in own.rows("escrow.unwritten")]
        retired = [row["version"] for row in own.rows("baseline.retired")]
    join(place)
    with closing(PostgresDatabase(place.url, here="one")) as db:
        assert [row["version"] for row in db.rows("baseline.unwritten")] == versions
        assert [row["entry"] for row in db.rows("escrow.unwritten")] == entries
        assert [row["version"] for row in db.rows("baseline.retired")] == retired == [1]


def test_a_row_that_differs_keeps_all_from_coming_over(place: Place) -> None:
    with closing(PostgresDatabase(place.url, here="one")) as db:
        db.connection.ask(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.reason := 0; RETURN NEW; END'"
        )
        db.connection.ask("CREATE TRIGGER lose BEFORE INSERT ON pins FOR EACH ROW EXECUTE FUNCTION lose()")
    with pytest.raises(CopyDiffers, match=r"is not what was taken over: pins \d+\n  nothing was kept"):
        join(place)
    with psycopg.connect(place.url) as connection:
        assert connection.execute("SELECT count(*) FROM cycles").fetchone() == (0,)
    with closing(SqliteDatabase(place.path)) as own:
        assert own.rows("facts.get", name="store.moved_to") == []


def test_a_cycle_that_is_not_settled_keeps_all_from_coming_over(place: Place) -> None:
    with closing(SqliteDatabase(place.path)) as own:
        own.connection.execute("UPDATE cycles SET settled_at = NULL, state = 'failed' WHERE cycle = 7")
    with pytest.raises(KlorosError, match="cycle 7 is not settled, it is failed"):
        join(place)


def test_a_copy_for_explaining_is_the_scope_as_the_host_sees_it(place: Place, tmp_path: Path) -> None:
    join(place)
    with closing(copy_of(place)) as memory, closing(sqlite3.connect(tmp_path / "copy.db")) as file:
        memory.connection.backup(file)
    found = differing(str(tmp_path / "copy.db"), place)
    assert {name for name, row in found.items() if row} <= NOT_COPIED_WHOLE
    with closing(copy_of(place._replace(here="two"))) as other:
        assert other.rows("counters.all") == []
        assert other.rows("cycles.recent", limit=9) != []
        assert len(other.rows("baseline.unwritten")) == len(other.rows("baseline.all"))
