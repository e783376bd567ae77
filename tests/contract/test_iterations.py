"""What the store says of iterations, over a real SQLite: streaks, gauges, and that asking stays cheap."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.loop import ledger
from orchestration.loop.iteration import Plan, Row
from orchestration.loop.status import FAILURES, Status
from orchestration.pulse import metrics
from orchestration.store.queries import sql
from orchestration.store.sqlite import SqliteDatabase

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)
F, S, D, X = Status.FAILED, Status.SUCCESS, Status.DEGRADED, Status.INTERRUPTED


def after(statuses: Sequence[Status], *, max_failures: int = 3, next_run_at: datetime | None = None) -> SqliteDatabase:
    """Return a store in which iterations ended so, the newest last."""
    db = SqliteDatabase(":memory:")
    for number, status in enumerate(statuses, 1):
        with db.transaction():
            begun = ledger.begin(db, token=str(number), now=NOW, plan=Plan("m", "g", None, "", "l"), history_path="h")
            assert ledger.end(db, row(begun.iteration, status), archive_new=status is S if status in (S, D) else None)
            assert not ledger.end(db, row(begun.iteration, status), archive_new=None), "counted once"
            ledger.note_gauges(db, max_failures=max_failures, next_run_at=next_run_at)
    return db


def row(iteration: int, status: Status) -> Row:
    ended = NOW + timedelta(minutes=iteration)
    return Row(
        ended, NOW, ended, 1.0, iteration, "m", "g", status, None, None, (), False, None, "", "l", None, None, ended
    )  # fmt: skip


def in_a_row(oldest_first: Sequence[Status]) -> int:
    """Count as a person would: back to the last that ended well, without the interrupted ones."""
    ended_well = [number for number, status in enumerate(oldest_first, 1) if status in (S, D)]
    return sum(status in FAILURES for status in oldest_first[max(ended_well, default=0) :])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(list(Status)), max_size=12))
def test_a_streak_is_what_failed_since_the_last_that_ended_well(statuses: list[Status]) -> None:
    db = after(statuses)
    assert ledger.past(db).failures_in_a_row == in_a_row(statuses)
    db.close()


@pytest.mark.parametrize(
    ("oldest_first", "number"), [([], 0), ([F, S, F, F], 2), ([F, S], 0), ([F, D], 0), ([S, F, X, F, X], 2), ([F, S, X], 0)]
)
def test_interrupted_iterations_neither_break_nor_lengthen_a_streak(oldest_first: list[Status], number: int) -> None:
    db = after(oldest_first)
    assert ledger.past(db).failures_in_a_row == number
    db.close()


def test_a_long_streak_is_counted_whole() -> None:
    """A limit of 60 failures must be reached also when people interrupted the loop more often than that."""
    db = after([F] * 30 + [X] * 70 + [F] * 30, max_failures=60)
    assert ledger.past(db).failures_in_a_row == 60
    assert metrics.read(db)["kloros_loop_failure_limit_reached", ""] == 1
    db.close()


def test_the_gauges_follow_the_iterations() -> None:
    db = after([S, D, D, F, D], max_failures=1, next_run_at=NOW)
    values = metrics.read(db)
    assert {labels: value for (name, labels), value in values.items() if name == "kloros_loop_iterations_total"} == {
        'status="success"': 1, 'status="degraded"': 3, 'status="failed"': 1,
    }  # fmt: skip
    assert values["kloros_loop_archives_stale", ""] == 1
    assert values["kloros_loop_consecutive_failures", ""] == values["kloros_loop_failure_limit_reached", ""] == 0
    assert values["kloros_loop_last_iteration_timestamp_seconds", ""] == (NOW + timedelta(minutes=5)).timestamp()
    assert values["kloros_loop_next_run_timestamp_seconds", ""] == NOW.timestamp()
    db.close()


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_a_limit_of_zero_is_never_reached(limit: int) -> None:
    db = after([F, F], max_failures=limit)
    assert metrics.read(db)["kloros_loop_failure_limit_reached", ""] == (limit in (1, 2))
    db.close()


@pytest.mark.parametrize("name", ["failures_in_a_row", "open", "unwritten"])
def test_asking_reads_no_whole_table(tmp_path: Path, name: str) -> None:
    """A loop with a million iterations behind it asks these a dozen times for each new one."""
    SqliteDatabase(str(tmp_path / "db")).close()
    raw = sqlite3.connect(tmp_path / "db")
    plan = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {sql(f'iterations.{name}')}") if "iterations" in row[3]]
    raw.close()
    assert plan
    assert all("USING INDEX" in step or "USING COVERING INDEX" in step for step in plan), plan
    assert not [step for step in plan if step.startswith("SCAN") and "iterations_unwritten" not in step], plan
