"""A version of the baseline is judged by the PHASEs under it, and rolled back when it is worse."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.cycles import artifacts, ledger
from orchestration.cycles.cycle import Cause, CycleEvent, JobName, Origin, Result
from orchestration.cycles.job import Job
from orchestration.host import clock
from orchestration.store.sqlite import SqliteDatabase
from tests.acceptance.host import Host, script

GOOD = (0.80, 0.82, 0.81)
BAD = (0.70, 0.72, 0.71)


@pytest.fixture
def judged(host: Host) -> Host:
    """A host with a first version of the baseline."""
    host.stepwise()
    host.decided()
    change(host, 0.01)
    return host


def change(host: Host, rate: float) -> None:
    host.answer("baseline", "set", f"learning_rate={rate}", "--reason", "test")


@contextmanager
def store(host: Host) -> Iterator[SqliteDatabase]:
    with closing(SqliteDatabase(str(host.state / "kloros.db"))) as db:
        yield db


def enqueue(host: Host, command: str, cause: Cause = Cause.INTENT) -> None:
    with store(host) as db, db.transaction():
        ledger.enqueue(
            db,
            job=Job(JobName.PHASE, ("sh", "-c", command), "", timedelta(minutes=5)),
            origin=Origin(cause, "tick-1"),
            token=os.urandom(8).hex(),
            now=clock.now() - timedelta(days=1) + timedelta(minutes=len(ledger.recent(db, 100))),  # an epoch of its own
        )


def end_phase(
    host: Host,
    report: dict[str, Any],
    event: CycleEvent = CycleEvent.SUCCEED,
    *,
    cause: Cause = Cause.INTENT,
    code: int | None = None,
) -> None:
    """Do to a PHASE what its runner does."""
    enqueue(host, "true", cause)
    with store(host) as db:
        with db.transaction():
            cycle = ledger.claim_next(db, runner="{}", now=clock.now())
        assert cycle is not None
        folder = artifacts.make_folder(str(host.state / "cycles"), cycle.cycle)
        path = Path(artifacts.report_path(folder))
        path.write_text(json.dumps(report))
        exit_code = int(event is not CycleEvent.SUCCEED) if code is None else code
        result = Result(reason="test", exit_code=exit_code, report=str(path))
        with db.transaction():
            ledger.finish(db, cycle, event, result, now=clock.now())


def phases(host: Host, *scores: float) -> None:
    """Have PHASEs with these results, and a tick settle them, one after the other."""
    for score in scores:
        end_phase(host, {"score": score})
    host.decided()


def versions(host: Host) -> list[tuple[int, str, str]]:
    return [(one["version"], one["kind"], one["validation"]["verdict"]) for one in host.answer("baseline", "history")]


def test_what_is_worse_is_rolled_back_and_says_by_which_numbers(judged: Host) -> None:
    phases(judged, *GOOD)
    change(judged, 0.02)
    phases(judged, *BAD[:2])
    assert versions(judged)[0] == (2, "set", "undecided")
    phases(judged, BAD[2])
    assert versions(judged) == [(3, "rollback", "undecided"), (2, "set", "rolled_back"), (1, "set", "undecided")]
    made = judged.answer("baseline", "show")
    assert (made["actor"], made["parameters"]) == ("kloros", {"learning_rate": 0.01})
    assert made["reason"] == "to version 1: version 2 was worse, -12.3 % in the median of 3 PHASEs, by score"
    assert json.loads((judged.state / "baseline" / "baseline.json").read_text())["parameters"] == {"learning_rate": 0.01}
    assert judged.answer("baseline", "verify")["faults"] == []

    shutil.rmtree(judged.state / "cycles")
    found = judged.answer("baseline", "show", "2")["validation"]
    assert (found["before"], found["after"], found["made"]) == (list(GOOD), list(BAD), 3)
    assert (found["cycles_before"], found["cycles_after"], found["cycle"]) == ([1, 2, 3], [4, 5, 6], 6)
    assert found["change"] == pytest.approx(0.71 / 0.81 - 1)
    shown = judged.run("klorosctl", "baseline", "show", "2").stdout
    assert "rolled_back" in shown
    assert "0.8, 0.82, 0.81" in shown
    assert "rolled_back -12.3 %" in judged.run("klorosctl", "baseline", "history").stdout


def test_a_rollback_is_judged_too_and_never_taken_back_by_itself(judged: Host) -> None:
    phases(judged, *GOOD)
    change(judged, 0.02)
    phases(judged, *BAD)
    phases(judged, 0.2, 0.2, 0.2)
    assert versions(judged)[0] == (3, "rollback", "escrowed")
    phases(judged, 0.1, 0.1, 0.1)
    assert versions(judged)[0] == (3, "rollback", "escrowed")
    (entry,) = judged.answer("escrow", "list")
    assert (entry["kind"], entry["target"], entry["status"]) == ("rollback", 2, "pending_review")


@pytest.mark.parametrize(
    ("after", "verdict"),
    [((0.81, 0.81, 0.81), "neutral"), ((0.7, 0.81, 0.81), "neutral"), ((0.83, 0.83, 0.1), "kept")],
)
def test_what_is_as_good_or_better_stays(judged: Host, after: tuple[float, ...], verdict: str) -> None:
    phases(judged, *GOOD)
    change(judged, 0.02)
    phases(judged, *after)
    assert versions(judged)[0] == (2, "set", verdict)
    phases(judged, *BAD)
    assert versions(judged)[0] == (2, "set", verdict), "a verdict is final"


def test_with_too_few_results_it_is_undecided(judged: Host) -> None:
    phases(judged, *GOOD[:2])
    change(judged, 0.02)
    phases(judged, 0.1, 0.1, 0.1, 0.1)
    assert versions(judged)[0] == (2, "set", "undecided")
    found = judged.answer("baseline", "show")["validation"]
    assert (found["verdict"], found["before"], found["after"]) == ("undecided", list(GOOD[:2]), [0.1, 0.1])
    assert found["reason"].startswith("2 of 3 PHASE results")


def test_off_a_person_decides(judged: Host) -> None:
    judged.set(KLR_VALIDATION_AUTOMATIC="false")
    phases(judged, *GOOD)
    change(judged, 0.02)
    phases(judged, *BAD)
    assert versions(judged)[0] == (2, "set", "escrowed")
    (entry,) = judged.answer("escrow", "list")
    assert entry["entry"] == judged.answer("baseline", "show")["validation"]["entry"]
    assert (judged.state / "escrow" / f"escrow-{entry['entry']}.json").exists()
    judged.answer("escrow", "approve", entry["entry"], "--reason", "I see")
    assert versions(judged)[0] == (3, "rollback", "undecided")
    assert judged.answer("baseline", "show")["parameters"] == {"learning_rate": 0.01}


def test_what_today_s_bounds_forbid_is_a_person_s(judged: Host) -> None:
    phases(judged, *GOOD)
    change(judged, 0.02)
    phases(judged, *BAD[:2])
    judged.configure("[promotions.bounds]\nlearning_rate = [0.015, 0.1]\n")
    phases(judged, BAD[2])
    assert versions(judged)[0] == (2, "set", "escrowed")
    assert "below its bound 0.015" in judged.answer("baseline", "show")["validation"]["reason"]


def test_a_version_that_is_no_longer_in_force_is_judged_and_nothing_is_rolled_back(judged: Host) -> None:
    phases(judged, *GOOD)
    change(judged, 0.02)
    phases(judged, *BAD[:2])
    end_phase(judged, {"score": BAD[2]})
    change(judged, 0.03)
    judged.decided()
    assert versions(judged)[:2] == [(3, "set", "undecided"), (2, "set", "worse")]
    assert "version 3 is in force by now" in judged.answer("baseline", "show", "2")["validation"]["reason"]


def test_a_phase_during_which_the_baseline_changed_counts_for_neither(judged: Host) -> None:
    enqueue(judged, "true")
    with store(judged) as db, db.transaction():
        cycle = ledger.claim_next(db, runner="{}", now=clock.now())
    assert cycle is not None
    change(judged, 0.02)
    report = judged.state / "report.json"
    report.write_text('{"score": 0.5}')
    with store(judged) as db, db.transaction():
        ledger.finish(db, cycle, CycleEvent.SUCCEED, Result(reason="test", exit_code=0, report=str(report)), now=clock.now())
    judged.decided()
    assert judged.rows("SELECT version, result FROM phase_results") == [(None, 0.5)]
    end_phase(judged, {"score": 0.6})
    judged.decided()
    assert judged.rows("SELECT version, result FROM phase_results") == [(None, 0.5), (2, 0.6)]
    assert "0.5, score; the baseline changed meanwhile" in judged.run("klorosctl", "show", "1").stdout
    assert "0.6, score; under baseline version 2" in judged.run("klorosctl", "show", "2").stdout
    assert judged.answer("show", "2")["phase_result"]["result"] == 0.6


def test_a_phase_over_files_that_were_edited_counts_for_no_version(judged: Host) -> None:
    shown = judged.state / "baseline" / "baseline.json"
    whole = shown.read_text()
    shown.write_text(whole.replace("0.01", "0.09"))
    end_phase(judged, {"score": 0.5})
    said = judged.tick("--json").stderr
    assert f"the result of PHASE 1 counts for no version of the baseline: {shown} was edited" in said
    assert judged.rows("SELECT version, result FROM phase_results") == [(None, 0.5)]
    assert "the baseline changed meanwhile, or was edited" in judged.run("klorosctl", "show", "1").stdout
    assert judged.answer("baseline", "verify", "--repair")["faults"] == []
    end_phase(judged, {"score": 0.6})
    judged.decided()
    assert judged.rows("SELECT version, result FROM phase_results") == [(None, 0.5), (1, 0.6)]


def test_the_first_version_is_judged_by_what_was_without_any(host: Host) -> None:
    host.stepwise()
    host.decided()
    phases(host, *GOOD)
    change(host, 0.01)
    phases(host, *BAD)
    assert versions(host) == [(1, "set", "worse")]
    assert "no version before the first" in host.answer("baseline", "show")["validation"]["reason"]


def test_results_from_before_there_were_versions_are_those_of_what_was_imported(host: Host, tmp_path: Path) -> None:
    host.stepwise()
    older = {"schema": "v1", "parameters": {"learning_rate": 0.01}, "fitness": 0.4, "cycle": 0, "promotions": [], "ts": 1}
    (host.state / "baseline").mkdir()
    (host.state / "baseline" / "baseline.json").write_text(json.dumps(older))
    host.decided()
    phases(host, *GOOD)
    change(host, 0.02)
    phases(host, *BAD)
    assert versions(host) == [(3, "rollback", "undecided"), (2, "set", "rolled_back"), (1, "imported", "undecided")]
    assert host.answer("baseline", "show")["parameters"] == {"learning_rate": 0.01}


def test_which_phases_have_a_result(judged: Host) -> None:
    groups = [{"name": "a", "status": "succeeded"}, {"name": "b", "status": "failed"}]
    end_phase(judged, {"domains": groups, "result": "failed"}, CycleEvent.FAIL)
    for event in (CycleEvent.FAIL, CycleEvent.TIME_OUT, CycleEvent.CANCEL, CycleEvent.LOSE):
        judged.decided()
        end_phase(judged, {"score": 1, "result": "unfinished"}, event)
    judged.decided()
    end_phase(judged, {"score": 1, "result": "failed"}, CycleEvent.FAIL, code=0)  # its signal was no good
    judged.decided()
    end_phase(judged, {"score": 1}, cause=Cause.DIRECT)
    judged.decided()
    end_phase(judged, {"nothing": "known"})
    judged.decided()
    assert judged.rows("SELECT cycle, version, measure, result FROM phase_results") == [(1, 1, "pass rate of a, b", 0.5)]


def test_the_whole_way_with_runners_hints_and_promotions(host: Host, tmp_path: Path) -> None:
    """Each of six PHASEs reads the baseline that it tests; the types take turns, so like is compared with like."""
    host.stepwise()
    host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", ["exit 0"]))
    measure = tmp_path / "measure.py"
    measure.write_text(
        "import json, os\n"
        "score = 1 - json.load(open(os.environ['KLR_BASELINE']))['parameters']['learning_rate']\n"
        "json.dump({'score': score}, open(os.environ['KLR_CYCLE_DIR'] + '/artifacts/report.json', 'w'))\n"
    )
    for stem, rate in (("one", 0.01), ("two", 0.09)):
        host.promote(stem, changes={"learning_rate": rate})
        host.decided()
        host.run_queued()
        for _ in range(3):
            enqueue(host, f"{sys.executable} {measure}")
            host.run_queued()
    assert versions(host) == [(3, "rollback", "undecided"), (2, "cycle", "rolled_back"), (1, "cycle", "undecided")]
    assert host.answer("baseline", "show")["parameters"] == {"learning_rate": 0.01}
    types = [one for (one,) in host.rows("SELECT phase_type FROM phase_results ORDER BY cycle")]
    assert set(types[:3]) == set(types[3:]) == {"LIGHT", "DEEP", "REM"}
