"""The default PHASE job as a process: settings in; report, output and exit code out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestration.phase.result import PhaseResult, of_report

PYTHON = sys.executable


class Ended(NamedTuple):
    code: int
    printed: str
    report: dict[str, Any]

    def domain(self, name: str) -> dict[str, Any]:
        return next(d for d in self.report["domains"] if d["name"] == name)


@pytest.fixture
def cycle(tmp_path: Path) -> Path:
    (tmp_path / "cycle_00042").mkdir()
    return tmp_path / "cycle_00042"


def toml(name: str, *command: str, timeout: str = "30s") -> str:
    return f'[phase.domains."{name}"]\ncommand = {json.dumps(command)}\ntimeout = "{timeout}"\n'


def start(cycle: Path, settings: str, **environ: str) -> Ended:
    config = cycle.parent / "orchestrator.toml"
    config.write_text(settings)
    given = {
        "PATH": os.environ["PATH"],
        "KLR_CONFIG": str(config),
        "KLR_STATE_DIR": str(cycle.parent),
        "KLR_CYCLE": "42",
        "KLR_CYCLE_DIR": str(cycle),
        "KLR_EPOCH": "phase_cycle_20260708_070000",
        "KLR_CYCLES_TERM_GRACE": "1s",
    }
    done = subprocess.run(
        [PYTHON, "-m", "orchestration.phase.domains"],
        env={**given, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    path = cycle / "artifacts" / "report.json"
    return Ended(done.returncode, done.stdout, json.loads(path.read_text()) if path.exists() else {})


def test_domains_that_succeed_are_a_phase_that_succeeds(cycle: Path) -> None:
    ended = start(
        cycle,
        toml("unit", PYTHON, "-c", "print('three passed')") + toml("env", "sh", "-c", "echo $KLR_EPOCH >&2"),
    )
    assert ended.code == 0, ended.printed
    assert ended.report["result"] == "succeeded"
    assert ended.report["reason"] == "2 of 2 domains succeeded"
    assert ended.report["schema"] == "v1"
    assert (ended.report["epoch"], ended.report["cycle"]) == ("phase_cycle_20260708_070000", "42")
    assert ended.report["started_at"] <= ended.report["ended_at"]
    assert [d["name"] for d in ended.report["domains"]] == ["unit", "env"]
    unit = ended.domain("unit")
    assert (unit["status"], unit["exit_code"], unit["output_tail"]) == ("succeeded", 0, "three passed\n")
    assert unit["seconds"] > 0
    assert ended.domain("env")["output_tail"] == "phase_cycle_20260708_070000\n"
    assert "unit: succeeded" in ended.printed


def test_every_domain_runs_and_each_failure_is_named(cycle: Path) -> None:
    ended = start(
        cycle,
        toml("broken", "sh", "-c", "echo assertion 7 is false; exit 3")
        + toml("slow", "sleep", "60", timeout="1s")
        + toml("absent", "/nowhere/tests")
        + toml("crashed", "sh", "-c", "kill -SEGV $$")
        + toml("good", "true"),
    )
    assert ended.code == 1
    assert ended.report["result"] == "failed"
    statuses = {d["name"]: d["status"] for d in ended.report["domains"]}
    assert statuses == {
        "broken": "failed",
        "slow": "timed_out",
        "absent": "not_started",
        "crashed": "failed",
        "good": "succeeded",
    }
    assert ended.domain("broken")["exit_code"] == 3
    assert ended.domain("slow")["reason"].startswith("timed out")
    assert ended.domain("slow")["seconds"] < 30
    assert ended.domain("absent")["reason"].startswith("could not be started")
    assert "/nowhere/tests" in ended.domain("absent")["reason"]
    assert "SEGV" in ended.domain("crashed")["reason"]
    for name in ("broken", "slow", "absent", "crashed"):
        assert f"{name}: " in ended.report["reason"]
    assert "good" not in ended.report["reason"]
    assert "assertion 7 is false" in ended.printed


ASKED = ("sh", "-c", "echo ${KLR_PHASE_TYPE-none} ${KLR_WORKERS-none} ${KLR_FIDELITY-none}")


def test_each_domain_is_told_the_hints_that_are_for_it(cycle: Path) -> None:
    hints = cycle.parent / "hints.json"
    advice = {"phase_type": "DEEP", "workers_hint": 4, "fidelity_hint": "high", "test_group_overrides": {"env": "medium"}}
    hints.write_text(json.dumps(advice))
    ended = start(cycle, toml("unit", *ASKED) + toml("env", *ASKED), KLR_HINTS=str(hints))
    assert (ended.domain("unit")["output_tail"], ended.domain("env")["output_tail"]) == ("DEEP 4 high\n", "DEEP 4 medium\n")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"test_group_overrides": 3}'])
def test_without_hints_that_can_be_read_the_domains_run_all_the_same(cycle: Path, content: str | None) -> None:
    hints = cycle.parent / "hints.json"
    if content is not None:
        hints.write_text(content)
    ended = start(cycle, toml("unit", *ASKED), KLR_HINTS=str(hints))
    assert (ended.code, ended.domain("unit")["output_tail"]) == (0, "none none none\n")


def test_only_the_end_of_long_output_is_in_the_report(cycle: Path) -> None:
    ended = start(cycle, toml("loud", PYTHON, "-c", "print('x' * 9000 + chr(233) + 'last')"))
    tail = ended.domain("loud")["output_tail"]
    assert tail.endswith("xélast\n")
    assert 4000 < len(tail) <= 4096
    assert len(Path(ended.domain("loud")["output"]).read_text()) == 9006


def test_output_that_is_no_text_is_no_fault(cycle: Path) -> None:
    ended = start(cycle, toml("binary", PYTHON, "-c", r"import os; os.write(1, b'\xff\x00\xfe')"))
    assert ended.code == 0
    assert ended.domain("binary")["output_tail"] == "\ufffd\0\ufffd"


def test_a_domain_sees_the_report_unfinished(cycle: Path) -> None:
    """What a PHASE leaves when it is ended early."""
    ended = start(cycle, toml("first", "true") + toml("second", "cat", str(cycle / "artifacts" / "report.json")))
    seen = json.loads(ended.domain("second")["output_tail"])
    assert seen["result"] == "unfinished"
    assert [d["status"] for d in seen["domains"]] == ["succeeded", "not_run"]


def test_without_domains_the_doctor_is_asked(cycle: Path) -> None:
    ended = start(cycle, "")
    assert [d["name"] for d in ended.report["domains"]] == ["doctor"]
    assert ended.report["domains"][0]["command"] == [PYTHON, "-m", "orchestration.klorosctl", "doctor"]
    assert ended.report["domains"][0]["status"] in ("succeeded", "failed"), "it is started in any case"
    assert (ended.report["score"], ended.report["of_host"]) == (None, True), "it says nothing about the baseline"


def test_configured_domains_have_a_pass_rate(cycle: Path) -> None:
    ended = start(cycle, toml("good", "true") + toml("bad", "false"))
    assert "score" not in ended.report
    found = of_report(ended.report, succeeded=False)
    assert found == PhaseResult(value=0.5, measure="pass rate of bad, good")


def test_without_a_cycle_s_folder_it_says_what_is_missing(cycle: Path) -> None:
    ended = start(cycle, toml("good", "true"), KLR_CYCLE_DIR="")
    assert ended.code == 64
    assert "KLR_CYCLE_DIR" in ended.printed


def test_invalid_settings_are_refused(cycle: Path) -> None:
    ended = start(cycle, "[phase.domains.bad]\ncommand = []\n")
    assert ended.code == 78
    assert "phase.domains.bad.command" in ended.printed
