"""Which cycles stay on disk, how the others go, and that a removal that was killed is finished."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestration.configuration import load
from orchestration.cycles import ledger, retention
from orchestration.cycles.cycle import CycleNumber
from orchestration.errors import KlorosError
from orchestration.store.instants import to_text
from orchestration.store.queries import sql
from orchestration.store.sqlite import SqliteDatabase

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Kept:
    """A state folder with cycles of any age."""

    def __init__(self, state: Path) -> None:
        self.state = state
        state.mkdir()
        self.settings = load({"KLR_STATE_DIR": str(state), "KLR_CONFIG": os.devnull})
        self.db = SqliteDatabase(str(state / "kloros.db"))

    def ended(
        self,
        number: int,
        days: int,
        *,
        job: str = "dream",
        state: str = "succeeded",
        stems: tuple[str, ...] = (),
        settled: bool = True,
    ) -> None:
        ended = to_text(NOW - timedelta(days=days))
        origin = {"cause": "promotions", "tick_id": "t", "promotions": stems, "topic": "", "intent": ""}
        with sqlite3.connect(self.state / "kloros.db") as raw:
            raw.execute(
                "INSERT INTO cycles (cycle, job, state, token, cause, origin, command, timeout_seconds,"
                " queued_at, ended_at, settled_at) VALUES (?, ?, ?, ?, 'promotions', ?, '[]', 1, ?, ?, ?)",
                (number, job, state, str(number), json.dumps(origin), ended, ended, ended if settled else None),
            )
        raw.close()
        (self.folder(number) / "artifacts").mkdir(parents=True)
        (self.folder(number) / "artifacts" / "file").touch()
        (self.state / "out").mkdir(exist_ok=True)
        for suffix in ("", ".sha256"):
            (self.state / "out" / f"cycle_{number:05d}.tar.gz{suffix}").touch()

    def folder(self, number: int) -> Path:
        return self.state / "cycles" / f"cycle_{number:05d}"

    def over(self, *, last: int = 0, days: int = 10, limit: int = -1, held_too: bool = False) -> list[CycleNumber]:
        return ledger.over(self.db, keep_last=last, before=NOW - timedelta(days=days), limit=limit, held_too=held_too)

    def prune(self, *numbers: int, at_most: int | None = None) -> retention.Pruned:
        given = [CycleNumber(number) for number in numbers]
        return retention.prune(self.db, self.settings, given, now=NOW, at_most=at_most)

    def on_disk(self) -> list[str]:
        return sorted(os.listdir(self.state / "cycles")) + sorted(os.listdir(self.state / "out"))

    def pruned(self) -> list[int]:
        with sqlite3.connect(self.state / "kloros.db") as raw:
            rows = raw.execute("SELECT cycle FROM cycles WHERE pruned_at IS NOT NULL ORDER BY cycle").fetchall()
        raw.close()
        return [cycle for (cycle,) in rows]

    def baseline(self, cycle: int) -> None:
        content = {"schema": "v1", "parameters": {}, "fitness": 1.0, "cycle": cycle, "promotions": [], "ts": 1}
        (self.state / "baseline").mkdir(exist_ok=True)
        (self.state / "baseline" / "baseline.json").write_text(json.dumps(content))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path / "state")
    yield made
    made.db.close()


def test_number_or_age_keeps_a_cycle(kept: Kept) -> None:
    for number, days in enumerate((50, 40, 30, 11, 9, 1), start=1):
        kept.ended(number, days)
    assert kept.over() == [1, 2, 3, 4]
    assert kept.over(last=3) == [1, 2, 3]
    assert kept.over(last=6) == []
    assert kept.over(days=45) == [1]
    assert kept.over(limit=2) == [1, 2]


def test_reflections_and_iterations_push_no_other_cycle_out(kept: Kept) -> None:
    for number, job in enumerate(("phase", "dream", "phase", "loop", *["reflection"] * 6), start=1):
        kept.ended(number, 50 - number, job=job)
    assert kept.over(last=1) == [1, 4, 5, 6, 7, 8, 9]
    assert kept.over(last=2) == [4, 5, 6, 7, 8]
    assert kept.over(last=0) == list(range(1, 11))


def test_what_is_pinned_or_unsettled_or_gone_is_not_asked_about(kept: Kept) -> None:
    for number in (1, 2, 3):
        kept.ended(number, 50, settled=number != 2)
    kept.db.run("pins.set", cycle=1, reason="", pinned_by="x", now=to_text(NOW))
    assert kept.over(held_too=True) == [3]
    kept.prune(3)
    assert kept.over(held_too=True) == []
    kept.db.run("pins.remove", cycle=1)
    assert kept.over() == [1]


def test_folder_and_bundle_go_and_the_row_stays(kept: Kept) -> None:
    kept.ended(1, 50)
    kept.ended(2, 50)
    assert kept.prune(1) == ((1,), (), {}, {})
    assert kept.on_disk() == ["cycle_00002", "cycle_00002.tar.gz", "cycle_00002.tar.gz.sha256"]
    assert kept.pruned() == [1]
    assert ledger.get(kept.db, CycleNumber(1)) is not None
    kept.prune(1)
    assert [row["value"] for row in kept.db.rows("counters.all") if row["name"] == "kloros_cycles_pruned_total"] == [1]


def test_what_something_refers_to_is_held(kept: Kept) -> None:
    kept.ended(1, 50, job="phase")
    kept.ended(2, 50, job="phase")
    kept.ended(3, 50, job="phase", state="failed")
    kept.ended(4, 50)
    kept.ended(5, 50, state="failed", stems=("a", "b"))
    kept.ended(6, 50, state="failed", stems=("b",))
    kept.baseline(4)
    with sqlite3.connect(kept.state / "kloros.db") as raw:
        raw.execute(
            "INSERT INTO promotions (stem, promotion_id, state, failures, first_seen_at, changed_at, cycle)"
            " VALUES ('a', 'a', 'parked', 5, '', '', 7), ('b', 'b', 'rejected', 5, '', '', 6)"
        )
    raw.close()
    held = retention.held_among(kept.db, kept.settings, kept.over())
    assert list(held) == [2, 4, 5]
    assert "acks name its report" in held[CycleNumber(2)]
    assert "baseline" in held[CycleNumber(4)]
    assert held[CycleNumber(5)] == "it tried what is parked: a"
    done = kept.prune(*kept.over())
    assert (done.removed, done.held) == ((1, 3, 6), held)


def test_what_is_held_is_asked_about_again_when_something_else_goes(kept: Kept) -> None:
    kept.ended(1, 50)
    kept.ended(2, 40)
    kept.baseline(1)
    assert kept.over(limit=1) == [1]
    assert kept.prune(1).removed == ()
    assert kept.over(limit=1) == [2], "a held one must not stand in the way of others, nor wake every tick"
    assert kept.over(held_too=True) == [1, 2]
    kept.baseline(9)
    kept.prune(2)
    assert kept.over(limit=1) == [1]


def test_a_broken_baseline_stops_it(kept: Kept) -> None:
    kept.ended(1, 50)
    kept.baseline(1)
    (kept.state / "baseline" / "baseline.json").write_text("{}")
    with pytest.raises(KlorosError, match="no baseline"):
        kept.prune(1)
    assert kept.folder(1).exists()


@pytest.mark.parametrize("stage", ["hidden", "half removed", "all removed"])
def test_killed_at_any_stage_it_is_finished(kept: Kept, stage: str) -> None:
    kept.ended(1, 50)
    hidden = kept.state / "cycles" / ".pruned_cycle_00001"
    kept.folder(1).rename(hidden)
    if stage != "hidden":
        (hidden / "artifacts" / "file").unlink()
    if stage == "all removed":
        (hidden / "artifacts").rmdir()
        hidden.rmdir()
    assert kept.over() == [1]
    assert kept.prune(1).removed == (1,)
    assert kept.on_disk() == []
    assert kept.pruned() == [1]


def test_a_large_one_goes_in_parts_and_is_seen_by_nobody(kept: Kept) -> None:
    kept.ended(1, 50)
    for number in range(5):
        (kept.folder(1) / f"folder{number}").mkdir()
    assert kept.prune(1, at_most=3).begun == (1,)
    assert kept.on_disk() == [".pruned_cycle_00001"]
    assert kept.pruned() == []
    assert kept.over() == [1]
    while not kept.prune(1, at_most=3).removed:
        assert kept.over() == [1]
    assert kept.on_disk() == []


def test_a_link_in_the_place_of_a_folder_is_not_followed(kept: Kept, tmp_path: Path) -> None:
    kept.ended(1, 50)
    kept.folder(1).rename(tmp_path / "elsewhere")
    kept.folder(1).symlink_to(tmp_path / "elsewhere")
    assert kept.prune(1).removed == (1,)
    assert (tmp_path / "elsewhere" / "artifacts" / "file").exists()
    assert kept.on_disk() == []


def test_one_that_can_not_be_removed_stops_no_other(kept: Kept) -> None:
    kept.ended(1, 50)
    kept.ended(2, 50)
    (kept.state / "cycles" / ".pruned_cycle_00001").touch()
    done = kept.prune(1, 2)
    assert (done.removed, list(done.failed)) == ((2,), [1])
    assert kept.over(limit=1) == []
    assert kept.over(held_too=True) == [1]


def test_a_quiet_tick_reads_what_is_old_and_not_every_cycle(kept: Kept) -> None:
    """A host with years of cycles must pay for those on disk beyond their age alone."""
    with sqlite3.connect(kept.state / "kloros.db") as raw:
        parameters = {"before": "", "keep_last": 1, "limit": 1, "held_too": 0}
        plan = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {sql('cycles.over')}", parameters)]
    raw.close()
    assert plan[0] == "SEARCH cycles USING INDEX cycles_on_disk (ended_at<?)"
    assert plan.count("SEARCH cycles USING COVERING INDEX cycles_by_job (job=?)") == 2
