"""A look at the store that writes nothing: consistent, never stale, and never in a writer's way."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest

from orchestration.errors import StoreEmpty, StoreUnreachable, Unwritable
from orchestration.store import snapshot
from orchestration.store.counters import count
from orchestration.store.port import Database
from orchestration.store.sqlite import SCHEMA_VERSION, SqliteDatabase


def values(db: Database) -> dict[str, object]:
    return {str(row["name"]): row["value"] for row in db.rows("counters.all")}


@pytest.fixture
def path(tmp_path: Path) -> str:
    store = SqliteDatabase(str(tmp_path / "kloros.db"))
    count(store, "one")
    store.close()
    return str(tmp_path / "kloros.db")


def test_it_sees_what_is_there_and_leaves_nothing(path: str) -> None:
    before = os.stat(path)
    assert snapshot.look(path, values) == {"one": 1.0}
    assert os.listdir(os.path.dirname(path)) == ["kloros.db"]
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns


def test_it_sees_what_an_open_writer_has_committed_and_no_more(path: str) -> None:
    writer = SqliteDatabase(path)
    count(writer, "two")
    assert snapshot.look(path, values) == {"one": 1.0, "two": 1.0}
    with writer.transaction():
        count(writer, "three")
        assert snapshot.look(path, values) == {"one": 1.0, "two": 1.0}
    assert snapshot.look(path, values) == {"one": 1.0, "two": 1.0, "three": 1.0}
    writer.close()


def test_one_look_is_of_one_moment_and_its_writer_waits_for_nobody(path: str) -> None:
    writer = SqliteDatabase(path)
    seen: list[dict[str, object]] = []

    def look_twice(db: Database) -> None:
        seen.append(values(db))
        with writer.transaction():
            count(writer, "meanwhile")
        seen.append(values(db))

    snapshot.look(path, look_twice)
    assert seen == [{"one": 1.0}, {"one": 1.0}]
    writer.close()


def test_what_was_written_over_meanwhile_is_looked_at_again(path: str) -> None:
    seen: list[dict[str, object]] = []

    def write_meanwhile(db: Database) -> None:
        seen.append(values(db))
        if len(seen) == 1:
            store = SqliteDatabase(path)
            count(store, "meanwhile")
            store.close()

    snapshot.look(path, write_meanwhile)
    assert seen == [{"one": 1.0}, {"one": 1.0, "meanwhile": 1.0}]


def test_looks_among_many_writers_are_all_of_one_piece(path: str) -> None:
    """Each writer opens, adds to two counters together, and closes, as ticks do."""
    done = threading.Event()

    def write() -> None:
        for _ in range(60):
            store = SqliteDatabase(path)
            with store.transaction():
                count(store, "left")
                count(store, "right")
            store.close()
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    looks = 0
    while not done.is_set():
        found = snapshot.look(path, values)
        assert found.get("left") == found.get("right")
        looks += 1
    writer.join()
    assert looks > 5
    assert snapshot.look(path, values)["left"] == 60.0


def test_a_log_that_a_killed_writer_left_is_read(path: str) -> None:
    pid = os.fork()
    if pid == 0:
        store = SqliteDatabase(path)
        count(store, "last")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.path.getsize(f"{path}-wal") > 0
    assert snapshot.look(path, values) == {"one": 1.0, "last": 1.0}


def test_it_refuses_to_write(path: str) -> None:
    with pytest.raises(Unwritable, match=r"only looked at here; counters\.add would change it"):
        snapshot.look(path, lambda db: count(db, "two"))
    assert snapshot.look(path, values) == {"one": 1.0}


def test_no_store_and_one_of_another_release_are_told(tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreEmpty, match="there is no store at"):
        snapshot.look(str(tmp_path / "none.db"), values)
    with pytest.raises(StoreUnreachable, match="Not a directory"):
        snapshot.look(f"{path}/none.db", values)
    sqlite3.connect(tmp_path / "empty.db").close()
    with pytest.raises(StoreEmpty, match="no tables"):
        snapshot.look(str(tmp_path / "empty.db"), values)
    for version, hint in ((SCHEMA_VERSION - 1, "the next tick migrates it"), (SCHEMA_VERSION + 1, "a newer release")):
        with sqlite3.connect(path) as store:
            store.execute(f"PRAGMA user_version = {version}")
        with pytest.raises(StoreUnreachable, match=f"has schema version {version}; this program knows") as caught:
            snapshot.look(path, values)
        assert hint in caught.value.hint


def test_a_broken_store_is_told(tmp_path: Path) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(StoreUnreachable, match="not a database"):
        snapshot.look(str(path), values)
