"""The hints of a PHASE: what its command finds, what is on record, and what an operator is shown of it."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

import pytest

from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cause, JobName, Origin
from orchestration.cycles.job import Job
from orchestration.exits import Exit
from orchestration.host import clock
from orchestration.store.sqlite import SqliteDatabase
from tests.acceptance.host import Host

REPORT = (
    'printf \'{"domains": [{"name": "unit", "status": "%s"}, {"name": "env", "status": "succeeded"}]}\' WORD'
    " > $KLR_CYCLE_DIR/artifacts/report.json; "
)
KEEP = 'test -z "$KLR_HINTS" || cp "$KLR_HINTS" $KLR_CYCLE_DIR/artifacts/seen.json; echo "hints: ${KLR_HINTS-none}"'


@pytest.fixture
def stepped(host: Host) -> Host:
    host.stepwise()
    return host


def run_cycles(host: Host, *scripts: str, job: JobName = JobName.PHASE, promotions: tuple[str, ...] = ()) -> int:
    """Have a cycle of each script run; return the last number."""
    host.state.mkdir(exist_ok=True)
    number = 0
    for text in scripts:
        db = SqliteDatabase(str(host.state / "kloros.db"))
        with db.transaction():
            number = ledger.enqueue(
                db,
                job=Job(job, ("sh", "-c", text), "", timedelta(minutes=5)),
                origin=Origin(Cause.INTENT, "tick-1", promotions=promotions),
                token=os.urandom(8).hex(),
                now=clock.now() - timedelta(days=1) + timedelta(minutes=len(ledger.recent(db, 100))),  # an epoch of its own
            )
        db.close()
        done = host.run("run_cycle")
        assert done.returncode == Exit.DONE, done.stderr
    return number


def phase(word: str = "succeeded") -> str:
    return REPORT.replace("WORD", word) + KEEP


def answer(host: Host, verb: str, *, code: int = Exit.DONE) -> Any:
    done = host.run("klorosctl", "heuristics", verb, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def seen(host: Host, number: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((host.state / f"cycles/cycle_{number:05}/artifacts/seen.json").read_text())
    return content


def states(host: Host) -> list[str]:
    return [state for (state,) in host.rows("SELECT state FROM cycles ORDER BY cycle")]


def test_a_phase_finds_its_hints_and_they_are_on_record(stepped: Host) -> None:
    advised = answer(stepped, "show")["next"]
    number = run_cycles(stepped, phase())
    hints = seen(stepped, number)
    assert json.loads((stepped.state / "out" / "hints.json").read_text()) == hints
    assert (hints["schema"], hints["cycle"], hints["phase_type"]) == ("v1", number, "LIGHT")
    assert sum(hints["pass_weights"].values()) == pytest.approx(1)
    advice = ["phase_type", "workers_hint", "fidelity_hint", "test_group_overrides", "pass_weights", "rationale", "signals"]
    assert list(hints) == ["schema", "cycle", *advice]
    assert {**advised, "schema": "v1", "cycle": number} == hints
    shown = answer(stepped, "show")
    assert shown["last_given"] == hints
    assert json.loads((stepped.state / f"cycles/cycle_{number:05}/manifest.json").read_text())["environment"].count(
        "KLR_HINTS"
    )


def test_what_show_advises_is_what_the_phase_gets_and_replay_agrees(stepped: Host) -> None:
    for word in ("succeeded", "failed", "succeeded", "succeeded"):
        run_cycles(stepped, phase(word))
        run_cycles(stepped, "exit 0", "exit 3", job=JobName.DREAM)
    advised = answer(stepped, "show")
    hints = seen(stepped, run_cycles(stepped, phase()))
    assert {name: value for name, value in hints.items() if name not in ("schema", "cycle")} == advised["next"]
    assert [one["phase_type"] for one in answer(stepped, "replay")][:3] == ["LIGHT", "DEEP", "REM"]
    assert all(one["agrees"] for one in answer(stepped, "replay"))
    shown = answer(stepped, "show")["phases"]
    assert [one["stability"] for one in shown] == [pytest.approx(2 / 3)] * 4 + [1]
    assert [one["novelty"] for one in shown][:4] == [1, 0.5, 0.5, 0]
    assert "Every choice (5) agrees" in stepped.run("klorosctl", "heuristics", "replay").stdout
    assert "STABILITY" in stepped.run("klorosctl", "heuristics", "show").stdout


def test_a_promotion_that_came_into_the_baseline_counts_for_the_phase_before(stepped: Host) -> None:
    run_cycles(stepped, phase())
    for stem in ("one", "two"):
        stepped.promote(stem, changes={stem: 1})
    verdicts = json.dumps(
        {
            "schema": "v1",
            "verdicts": [
                {"promotion": "one", "accepted": True},
                {"promotion": "two", "accepted": False},
            ],
        }
    )
    run_cycles(
        stepped,
        f"echo '{verdicts}' > $KLR_CYCLE_DIR/artifacts/verdicts.json",
        job=JobName.DREAM,
        promotions=("one", "two"),
    )
    stepped.decided()
    run_cycles(stepped, phase())
    assert [one["promotion"] for one in answer(stepped, "show")["phases"]] == [0.5, 0]
    assert all(one["agrees"] for one in answer(stepped, "replay"))


def test_a_choice_that_the_store_does_not_bear_out_is_told(stepped: Host) -> None:
    run_cycles(stepped, phase(), phase())
    stepped.change("UPDATE facts SET value = replace(value, '\"DEEP\"', '\"REM\"') WHERE name = 'phase.hints.00002'")
    wrong = answer(stepped, "replay", code=1)
    assert [(one["cycle"], one["agrees"]) for one in wrong] == [(1, True), (2, False)]
    assert "cycle 2 was given REM; the store says DEEP" in stepped.run("klorosctl", "heuristics", "replay").stdout


def test_a_changed_report_says_nothing_and_a_pruned_one_stays_counted(stepped: Host) -> None:
    one, two = run_cycles(stepped, phase()), run_cycles(stepped, phase())
    report = stepped.state / f"cycles/cycle_{two:05}/artifacts/report.json"
    (stepped.state / f"cycles/cycle_{one:05}/artifacts/report.json").unlink()
    report.write_text(report.read_text().replace("unit", "other"))
    run_cycles(stepped, phase())
    phases = answer(stepped, "show")["phases"]
    assert [phases[0]["novelty"], phases[1]["novelty"]] == [1, 0]
    assert all(again["agrees"] for again in answer(stepped, "replay"))


@pytest.mark.parametrize("hindrance", ["a file", "read-only", "garbage", "odd garbage"])
def test_hints_that_can_not_be_given_fail_no_phase(stepped: Host, hindrance: str) -> None:
    run_cycles(stepped, phase())
    out = stepped.state / "out"
    if hindrance == "a file":
        (out / "hints.json").unlink()
        out.rmdir()
        out.write_text("")
    elif hindrance == "read-only":
        (out / "hints.json").unlink()
        (out / "hints.json").mkdir()
    else:
        value = "{" if hindrance == "garbage" else "[]"
        stepped.change(f"UPDATE facts SET value = '{value}' WHERE name = 'phase.hints.00001'")
    number = run_cycles(stepped, phase())
    assert states(stepped) == ["succeeded", "succeeded"]
    output = (stepped.state / f"cycles/cycle_{number:05}/logs/output.log").read_text()
    assert output == "hints: none\n"
    assert stepped.rows("SELECT count(*) FROM facts WHERE name = 'phase.hints.00002'") == [(0,)]
    assert not (stepped.state / f"cycles/cycle_{number:05}/artifacts/hints.json").exists()


def test_a_report_of_any_form_hinders_nothing(stepped: Host) -> None:
    deep = "[" * 100_000
    for content in ('{"domains": 3}', "[1]", '{"domains": [1, {"name": 1, "status": "x"}]}', deep):
        run_cycles(stepped, f"printf '%s' '{content}' > $KLR_CYCLE_DIR/artifacts/report.json")
    run_cycles(stepped, phase())
    assert states(stepped) == ["succeeded"] * 5
    phases = answer(stepped, "show")["phases"]
    assert [one["result_yield"] for one in phases] == [1.0] * 5


def test_without_any_phase_there_is_something_to_say(host: Host) -> None:
    assert answer(host, "replay") == []
    assert "LIGHT was never tried" in host.run("klorosctl", "heuristics", "show").stdout
