"""Bundles that are wanted: made one after the other, by one process at a time, until there is something better to do."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestration.configuration import load
from orchestration.cycles import packing
from orchestration.cycles.cycle import CycleNumber
from orchestration.host import clock
from orchestration.host.lock import FileLock
from orchestration.settings import Settings
from orchestration.store.instants import to_text
from orchestration.store.sqlite import SqliteDatabase

THEN = to_text(datetime(2026, 1, 1, tzinfo=UTC))


class Packing:
    """A state folder with ended cycles whose bundles are wanted."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.db = SqliteDatabase(str(state / "kloros.db"))
        (state / "none.toml").touch()
        self.settings: Settings = load({"KLR_STATE_DIR": str(state), "KLR_CONFIG": str(state / "none.toml")})

    def cycle(self, number: int, content: bytes = b"x", *, state: str = "succeeded", started: str | None = THEN) -> None:
        origin = json.dumps({"cause": "intent", "tick_id": "t", "promotions": []})
        columns = "cycle, job, state, token, cause, origin, command, timeout_seconds, queued_at, started_at"
        values = (number, "dream", state, str(number), "intent", origin, "[]", 1, THEN, started)
        with sqlite3.connect(self.state / "kloros.db") as raw:
            raw.execute(f"INSERT INTO cycles ({columns}) VALUES ({', '.join('?' * 10)})", values)
        raw.close()
        folder = self.state / "cycles" / f"cycle_{number:05d}"
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(content)
        if state != "queued":
            self.db.run("bundles.ask", cycle=number, due_at=THEN)

    def made(self) -> list[str]:
        out = self.state / "out"
        return sorted(name for name in os.listdir(out) if not name.endswith(".sha256")) if out.exists() else []

    def pending(self) -> list[int]:
        return [one["cycle"] for one in packing.pending(self.db)]


@pytest.fixture
def wanted(tmp_path: Path) -> Iterator[Packing]:
    found = Packing(tmp_path)
    for number in (1, 2, 3):
        found.cycle(number, os.urandom(3_000_000))
    yield found
    found.db.close()


def test_all_of_them(wanted: Packing) -> None:
    assert packing.pack(wanted.db, wanted.settings) == 3
    assert (len(wanted.made()), wanted.pending()) == (3, [])
    assert packing.pack(wanted.db, wanted.settings) == 0


def test_asked_to_stop_in_the_middle_of_one(wanted: Packing) -> None:
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        return looks > 6  # each has three megabytes, and is begun with a look

    assert packing.pack(wanted.db, wanted.settings, should_stop=stop) == 1
    assert (wanted.made(), wanted.pending()) == (["cycle_00001.tar.zst"], [2, 3])
    found = packing.of(wanted.db, CycleNumber(2))
    assert found is not None
    assert (found["made"], found["failures"], found["error"]) == (False, 0, "")
    assert [name for name in os.listdir(wanted.state / "out") if name.endswith(".tmp")] == []
    assert packing.pack(wanted.db, wanted.settings) == 2


def test_a_queued_cycle_goes_first(wanted: Packing) -> None:
    wanted.cycle(4, state="queued", started=None)
    assert packing.pack(wanted.db, wanted.settings) == 0
    assert wanted.pending() == [1, 2, 3]


def test_one_process_at_a_time(wanted: Packing) -> None:
    with FileLock(str(wanted.state / "locks" / "bundles.lock")).held("another"):
        assert packing.pack(wanted.db, wanted.settings) == 0
    assert wanted.pending() == [1, 2, 3]


def test_one_that_failed_waits_and_holds_up_no_other_nor_does_a_clock_that_was_set_back(wanted: Packing) -> None:
    for number, wait in ((1, timedelta(hours=1)), (2, timedelta(days=400))):
        wanted.db.run("bundles.fail", cycle=number, failures=1, due_at=to_text(clock.now() + wait), error="full")
    assert packing.pack(wanted.db, wanted.settings) == 2
    assert wanted.pending() == [1]
