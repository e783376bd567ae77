"""The logs of iterations go by number and age, a few at a time; rows of the history survive its rotation, each once."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestration.loop.logs import prune
from orchestration.loop.records import append_once
from orchestration.settings import Retention

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One log for each of the last ten hours, two of them in one second, and files of others."""
    for hours in range(10):
        (tmp_path / f"{NOW - hours * HOUR:%Y%m%dT%H%M%S}.log").touch()
    for name in ("20261121T030000-1.log", "latest.json", "20261120T170000.log.writing", "notes.log"):
        (tmp_path / name).touch()
    return tmp_path


def pruned(folder: Path, *, iteration: int = 16, now: datetime = NOW, **kept: object) -> int:
    """Return how many went."""
    before = len(os.listdir(folder))
    prune(str(folder), Retention.model_validate(kept), iteration=iteration, now=now)
    return before - len(os.listdir(folder))


def test_one_goes_when_neither_number_nor_age_keeps_it(folder: Path) -> None:
    assert pruned(folder, keep_last=2, keep_for="3h30min") == 6
    assert pruned(folder, keep_last=3, keep_for=0) == 2
    left = {"20261121T030000.log", "20261121T030000-1.log", "20261121T020000.log"}
    assert set(os.listdir(folder)) == {*left, "latest.json", "20261120T170000.log.writing", "notes.log"}


def test_the_log_of_the_iteration_at_work_stays_whatever_the_settings(folder: Path) -> None:
    pruned(folder, keep_last=0, keep_for=0, now=NOW + HOUR)
    assert (folder / "20261121T030000-1.log").exists()


def test_few_go_at_a_time_and_seldom(folder: Path) -> None:
    for hours in range(100, 200):
        (folder / f"{NOW - hours * HOUR:%Y%m%dT%H%M%S}.log").touch()
    assert pruned(folder, keep_last=0, keep_for="50h", per_tick=2) == 32
    assert pruned(folder, keep_last=0, keep_for="50h", per_tick=0) == 0
    assert [pruned(folder, keep_last=0, keep_for="50h", iteration=number) for number in range(33, 48)] == [0] * 15


def test_a_folder_that_is_gone_is_no_fault(tmp_path: Path) -> None:
    prune(str(tmp_path / "absent"), Retention(), iteration=16, now=NOW)


def test_a_row_that_was_rotated_away_before_it_was_noted_is_not_written_again(tmp_path: Path) -> None:
    """The loop was killed between writing the row and noting that; logrotate came by before the next loop."""
    history = tmp_path / "history.jsonl"
    for line in ("one", "two"):
        append_once(str(history), line)
    history.rename(f"{history}.1")
    append_once(str(history), "two")
    assert not history.exists()
    append_once(str(history), "three")
    assert (Path(f"{history}.1").read_text(), history.read_text()) == ("one\ntwo\n", "three\n")
