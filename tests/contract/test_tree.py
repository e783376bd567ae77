"""Bare trees of `cycle_NNNNN` folders, with no store: every folder is told of, whatever is in it, and nothing is made up."""

from __future__ import annotations

import json
import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from orchestration.cycles import ledger, manifest, products
from orchestration.cycles.artifacts import cycle_dir
from orchestration.cycles.cycle import CycleNumber, CycleState, JobName
from orchestration.errors import Usage
from orchestration.pulse.document import as_json
from orchestration.pulse.health import Condition, Verdict
from orchestration.pulse.survey import survey_tree
from tests.contract.seeded import NOW, Seeded


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six cycles of a real store, one every ten minutes, the newest ones bad; then the store is taken away."""
    (tmp_path / "before").mkdir()
    world = Seeded(tmp_path / "before")
    for number, state in enumerate(["succeeded", "succeeded", "failed", "lost", "timed_out", "failed"]):
        at = NOW - timedelta(minutes=60 - 10 * number)
        lines: list[dict[str, object] | str] | None = [{"joy": number}, "damaged"] if number % 2 else None
        world.cycle(
            CycleState(state), at=at, lines=lines, output=f"said {number + 1}\n".encode(), reason=f"was {number + 1}"
        )
    for number in range(1, 7):
        cycle = ledger.get(world.db, CycleNumber(number))
        assert cycle is not None
        path = Path(cycle_dir(world.settings.cycles_dir, cycle.cycle)) / "manifest.json"
        path.write_bytes(manifest.to_bytes(cycle, products.get(world.db, cycle.cycle)))
    world.db.close()
    return Path(shutil.move(world.settings.cycles_dir, tmp_path / "tree"))


def test_a_tree_says_what_its_store_did(tree: Path) -> None:
    found = survey_tree(str(tree), NOW)
    assert [(line.cycle, line.job, line.state, line.seconds) for line in found.cycles] == [
        (6, JobName.DREAM, CycleState.FAILED, 10.0),
        (5, JobName.DREAM, CycleState.TIMED_OUT, 10.0),
        (4, JobName.DREAM, CycleState.LOST, None),
        (3, JobName.DREAM, CycleState.FAILED, 10.0),
        (2, JobName.DREAM, CycleState.SUCCEEDED, 10.0),
        (1, JobName.DREAM, CycleState.SUCCEEDED, 10.0),
    ]
    assert [(one.line.cycle, one.tail) for one in found.failures] == [(n, f"said {n}") for n in (6, 5, 4, 3)]
    assert found.summary.totals == {"dream": {"succeeded": 2, "failed": 2, "timed_out": 1, "lost": 1}}
    assert found.summary.success_rate == pytest.approx(1 / 3)
    assert found.summary.means == {"joy": 3.0}
    assert found.damaged_lines == 3


def test_folders_with_nothing_but_telemetry_have_means_and_no_ends(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        logs = tmp_path / f"cycle_{number:05}" / "logs"
        logs.mkdir(parents=True)
        (logs / "metrics.jsonl").write_text(f'{{"joy": 0}}\n{{"joy": {number}}}\n')
    found = survey_tree(str(tmp_path), NOW)
    assert [line.series for line in found.cycles] == [{"joy": 3.0}, {"joy": 2.0}, {"joy": 1.0}]
    assert found.summary.means == {"joy": 2.0}
    summary = found.summary
    assert (summary.over, summary.success_rate, summary.streak_state, summary.streak) == (0, None, None, 0)
    assert (summary.mean_seconds, summary.p95_seconds) == (None, None)


def test_what_still_runs_is_in_no_mean(tree: Path) -> None:
    path = tree / "cycle_00006" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "state": "running"}))
    assert survey_tree(str(tree), NOW).summary.means == {"joy": 2.0}


def test_whether_anything_still_runs_is_not_known(tree: Path) -> None:
    found = survey_tree(str(tree), NOW)
    assert found.judgement.verdict is Verdict.UNKNOWN
    assert {cause.condition for cause in found.judgement.causes} == {
        Condition.NO_TICK_YET,
        Condition.DREAM_FAILING,
        Condition.CYCLE_LOST,
    }
    assert "bare folders" in found.judgement.causes[0].evidence
    assert (found.heartbeat, found.mode, found.last_tick, found.queues, found.next_window) == (None, None, None, (), None)
    json.dumps(as_json(found), allow_nan=False)


def test_gaps_damage_and_strangers_are_told_of_and_break_nothing(tree: Path) -> None:
    (tree / "cycle_00003" / "manifest.json").unlink()
    (tree / "cycle_00004" / "manifest.json").write_bytes(b'{"cycle": 4, "sta')
    shutil.rmtree(tree / "cycle_00005")
    (tree / "cycle_00009").mkdir()
    (tree / "cycle_100000").mkdir()
    (tree / "cycle_00005.1").mkdir()  # put aside by a run of the same number
    (tree / "cycle_x").mkdir()
    (tree / "cycle_00007").write_text("a file")
    (tree / "cycle_00008").symlink_to(tree / "cycle_00001")
    os.mkfifo(tree / "cycle_00009" / "manifest.json")
    (tree / "other").mkdir()
    found = survey_tree(str(tree), NOW)
    assert [(line.cycle, line.state, line.reason) for line in found.cycles] == [
        (100_000, "unknown", "it has no manifest.json that can be read"),
        (9, "unknown", "it has no manifest.json that can be read"),
        (6, "failed", "was 6"),
        (4, "unknown", "its manifest.json is damaged: no JSON"),
        (3, "unknown", "it has no manifest.json that can be read"),
        (2, "succeeded", "was 2"),
        (1, "succeeded", "was 1"),
    ]
    assert found.summary.over == 3, "what is not known is in no figure"
    assert found.summary.totals["unknown"] == {"unknown": 4}


def test_only_so_many_are_listed_and_all_are_counted(tree: Path) -> None:
    found = survey_tree(str(tree), NOW, cycles=2, failures=1)
    assert ([line.cycle for line in found.cycles], len(found.failures), found.summary.over) == ([6, 5], 1, 6)


def test_an_empty_folder_has_no_cycle(tmp_path: Path) -> None:
    found = survey_tree(str(tmp_path), NOW)
    assert (found.cycles, found.summary.over) == ((), 0)


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_folder_that_is_none_is_a_usage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Usage, match="can't be read"):
        survey_tree(str(tmp_path / name), NOW)
