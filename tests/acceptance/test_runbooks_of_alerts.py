"""Runbooks tried out: cause the fault, see the metric behind the alert tell it, run the commands shown, see them mend it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestration.exits import Exit
from orchestration.pulse.health import RULES
from tests.acceptance import test_validation
from tests.acceptance.host import PYTHON, Host, script
from tests.acceptance.looping import Looping
from tests.acceptance.moved_clock import run_at
from tests.acceptance.runbook import HEADINGS, Runbook
from tests.waiting import until

TOP = Path(__file__).parents[2]
OURS = (
    "alerts-missing",
    "archives-stale",
    "baseline-rolled-back",
    "baseline-unchanged",
    "cycle-lost",
    "escrow-waiting",
    "federation-behind",
    "intents-overflowing",
    "loop-stopped",
    "maintenance-forgotten",
    "metrics-absent",
    "phase-duration",
    "tick-failing",
    "urgent-alert",
)


def told(host: Host) -> set[str]:
    """Return the conditions that the textfile tells, which is what alerts rest on."""
    return {
        sample.labels["condition"]
        for family in text_string_to_metric_families(host.textfile.read_text())
        for sample in family.samples
        if sample.name == "kloros_health_condition" and sample.value == 1
    }


def metric(host: Host, name: str) -> float:
    return float(re.findall(rf"^{name} (.+)$", host.textfile.read_text(), re.MULTILINE)[0])


def test_ticks_fail(host: Host) -> None:
    page = Runbook("tick-failing")
    host.decided()
    (host.state / "intents").rmdir() if (host.state / "intents").exists() else None
    (host.state / "intents").write_text("no folder")
    for _ in range(3):
        assert host.tick().returncode == Exit.UNWRITABLE
    assert told(host) == {"tick_failing"}
    page.follow(host, "How to confirm")
    page.follow(host, "How to mend")
    assert told(host) == set()


def test_intents_overflow(host: Host) -> None:
    page = Runbook("intents-overflowing")
    host.stepwise()
    host.set(KLR_MAX_INTENT_QUEUE="2", KLR_DREAM_COMMAND="/bin/true")
    host.run("klorosctl", "maintenance", "on", "--reason", "new disks")
    for serial in range(4):
        host.intend("trigger_dream", reason=str(serial))
    host.decided()
    assert told(host) == {"maintenance", "intents_overflowing"}
    page.follow(host, "How to confirm")
    page.follow(host, "How to mend")
    host.run_queued()
    host.run_queued()
    assert told(host) == {"intents_overflowing"}, "for an hour"
    run_at(host, "+61m")
    assert "intents_overflowing" not in told(host)


def test_an_alert_is_urgent(host: Host) -> None:
    page = Runbook("urgent-alert")
    host.stepwise()
    host.set(KLR_DREAM_COMMAND=script(host.home, "dream", ["echo '03:00 CRITICAL trainer: giving up'"]))
    host.intend("trigger_dream")
    host.decided()
    host.run_queued()
    assert told(host) == {"urgent_alert"}
    page.follow(host, "How to confirm")
    page.follow(host, "How to mend")
    assert told(host) == {"urgent_alert"}, "for an hour"
    run_at(host, "+61m")
    assert "urgent_alert" not in told(host)


def test_an_alert_of_less_priority_is_not(host: Host) -> None:
    host.decided()
    host.intend("alert_phase_failed", priority=7)
    host.intend("suggest_something", priority=10)
    host.decided()
    host.decided()
    assert told(host) == set()


def test_a_cycle_is_lost(host: Host, tmp_path: Path) -> None:
    page = Runbook("cycle-lost")
    with stuck_runner(host, tmp_path) as runner:
        runner.kill()
        runner.wait()
    host.decided()
    assert told(host) == {"cycle_lost"}
    page.follow(host, "How to confirm")
    host.set(KLR_DREAM_COMMAND="/bin/true")
    page.follow(host, "How to mend")
    host.run_queued()
    assert host.rows("SELECT state FROM cycles") == [("lost",), ("succeeded",)]
    run_at(host, "+25h")
    assert "cycle_lost" not in told(host)


def test_a_cycle_runs_past_its_deadline(host: Host, tmp_path: Path) -> None:
    host.set(KLR_DREAM_TIMEOUT="1s", KLR_CYCLES_TERM_GRACE="0.5s")
    with stuck_runner(host, tmp_path) as runner:
        runner.send_signal(signal.SIGSTOP)
        run_at(host, "+10m")
        assert told(host) == {"cycle_overdue"}
        assert metric(host, "kloros_cycle_deadline_timestamp_seconds") > 0
        stat = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(runner.pid)], capture_output=True, text=True, check=True
        ).stdout
        assert stat.startswith("T"), "as the page says"
        runner.send_signal(signal.SIGCONT)
        assert runner.wait(30) == 0
    host.decided()
    assert host.rows("SELECT state FROM cycles") == [("timed_out",)]
    assert told(host) == set()


@contextmanager
def stuck_runner(host: Host, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have a runner whose command hangs."""
    host.stepwise()
    host.set(KLR_DREAM_COMMAND=script(tmp_path, "hangs.sh", ["touch $KLR_CYCLE_DIR/started", "exec sleep 600"]))
    host.intend("trigger_dream")
    host.decided()
    quiet = subprocess.DEVNULL
    runner = subprocess.Popen(host.command("run_cycle"), env=host.environ, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        until(lambda: list(host.state.glob("cycles/*/started")), "the command runs")
        yield runner
    finally:
        runner.kill()
        runner.wait()


def test_bundles_are_not_copied(host: Host, tmp_path: Path) -> None:
    page = Runbook("federation-behind")
    host.stepwise()
    host.set(
        KLR_FEDERATION_TARGET=f"file://{tmp_path}/copies",
        KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", ["echo done"]),
    )
    (tmp_path / "copies").write_text("a file where the folder belongs")
    host.intend("trigger_dream")
    host.decided()
    host.run_queued()
    host.run("run_cycle")
    run_at(host, "+7h")
    assert "federation_behind" in told(host)
    assert metric(host, "kloros_federation_oldest_timestamp_seconds") > 0
    page.follow(host, "How to confirm")
    moved, retried, seen = page.commands("How to mend")
    page.run(host, moved)
    page.run(host, retried)
    host.run("run_cycle")
    page.run(host, seen)
    host.decided()
    assert "federation_behind" not in told(host)
    assert metric(host, "kloros_federation_oldest_timestamp_seconds") == 0


def test_a_switch_was_left_on(host: Host) -> None:
    page = Runbook("maintenance-forgotten")
    host.decided()
    reason = ("--reason", "new disks")
    switches = {"maintenance": ("maintenance", "on", *reason), "halted": ("halt", *reason), "disabled": ("disable",)}
    host.environ.pop("KLR_ORCHESTRATION_MODE")
    host.run("klorosctl", "enable")
    for condition, switch in switches.items():
        assert host.run("klorosctl", *switch).returncode == 0
        host.tick()
        assert condition in told(host)
    page.follow(host, "How to confirm")
    page.follow(host, "How to mend")
    assert told(host) == set()


def test_the_last_phase_took_an_unusual_time(host: Host, tmp_path: Path) -> None:
    page = Runbook("phase-duration")
    host.stepwise()
    lines = ["unset LD_PRELOAD", "sleep 0.3", "echo {} > $KLR_CYCLE_DIR/artifacts/report.json"]
    host.set(KLR_PHASE_COMMAND=script(tmp_path, "phase.sh", lines))
    for serial in range(6):
        host.intend("trigger_phase_now", reason=str(serial))
        host.decided()
        run_at(host, "+0 x600" if serial == 5 else "+0", "run_cycle")
        host.decided()
    assert told(host) == {"phase_duration"}
    assert metric(host, "kloros_phase_last_duration_seconds") > 60
    page.follow(host, "How to confirm")
    page.follow(host, "How to mend")
    host.run_queued()
    assert told(host) == set()
    assert metric(host, "kloros_phase_last_duration_seconds") < 60


def test_the_metrics_are_absent(host: Host) -> None:
    page = Runbook("metrics-absent")
    host.textfile.parent.rmdir()
    host.decided()
    page.follow(host, "How to confirm")
    page.follow(host, "How to mend")
    assert metric(host, "kloros_orchestrator_last_tick_timestamp_seconds") > 0


def test_a_damaged_textfile_is_mended_by_the_next_tick(host: Host) -> None:
    """As the page on absent metrics says."""
    host.decided()
    host.textfile.write_text("kloros_build_info{")
    host.textfile.chmod(0o600)
    host.run("klorosctl", "tick")
    assert "kloros_build_info{" in host.textfile.read_text()
    assert subprocess.run(["promtool", "check", "metrics"], input=host.textfile.read_bytes(), check=False).returncode == 0
    assert host.textfile.stat().st_mode & 0o777 == 0o644


def test_the_baseline_has_not_changed_for_a_week(host: Host) -> None:
    page = Runbook("baseline-unchanged")
    host.stepwise()
    host.promote("gen1")
    run_at(host, "-8d")
    run_at(host, "-8d", "run_cycle")
    run_at(host, "-8d")
    host.decided()
    name = "kloros_baseline_changed_timestamp_seconds"
    before = metric(host, name)
    assert metric(host, "kloros_orchestrator_last_tick_timestamp_seconds") - before > 7 * 86400, "the limit of the alert"
    page.follow(host, "How to confirm")
    host.set(KLR_LAUNCHER="detached")
    host.promote("gen2", fitness=0.9, changes={"learning_rate": 0.02})
    page.follow(host, "How to mend")
    host.decided()
    assert metric(host, name) - before > 7 * 86400


HELD = "1389fe674b43"
"""The entry on the page; that of a test has another id."""


def test_a_change_waits_in_escrow(host: Host, tmp_path: Path) -> None:
    page = Runbook("escrow-waiting")
    host.stepwise()
    host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", ["exit 0"]))
    accepted_at(host, "-25h", "gen7_warm", 0.01)
    host.configure('[escrow]\nrequire = [{ parameter = "learning_*", change_over = 0.5 }]\n')
    accepted_at(host, "-1430m", "gen8_hot", 0.05)
    host.decided()
    assert "escrow_waiting" not in told(host), "it has not waited for a day"
    run_at(host, "+11m")
    assert "escrow_waiting" in told(host)
    assert metric(host, "kloros_escrow_pending") == 1
    ((entry,),) = host.rows("SELECT entry FROM escrow")
    page.text = page.text.replace(HELD, str(entry))
    page.follow(host, "How to confirm")
    page.follow(host, "How to mend")
    assert "escrow_waiting" not in told(host)
    assert metric(host, "kloros_escrow_pending") == metric(host, "kloros_escrow_oldest_timestamp_seconds") == 0
    assert 'kloros_escrow_total{status="approved"} 1.0' in host.textfile.read_text()
    assert metric(host, "kloros_baseline_version") == 2


def accepted_at(host: Host, at: str, stem: str, rate: float) -> None:
    """Have a promotion accepted in the past."""
    host.promote(stem, changes={"learning_rate": rate})
    run_at(host, at)
    run_at(host, at, "run_cycle")
    run_at(host, at)


def test_the_baseline_was_rolled_back(host: Host) -> None:
    page = Runbook("baseline-rolled-back")
    host.stepwise()
    host.decided()
    test_validation.change(host, 0.01)
    test_validation.phases(host, *test_validation.GOOD)
    test_validation.change(host, 0.02)
    test_validation.phases(host, *test_validation.BAD)
    assert told(host) == {"baseline_rolled_back"}
    assert metric(host, "kloros_baseline_version") == 3
    assert 'kloros_baseline_verdicts_total{verdict="rolled_back"} 1.0' in host.textfile.read_text()
    page.follow(host, "How to confirm")
    page.follow(host, "How to mend")
    assert metric(host, "kloros_baseline_version") == 4
    run_at(host, "+25h")
    assert "baseline_rolled_back" not in told(host), "after a day"


def test_the_loop_has_given_up(host: Host) -> None:
    page, looping = Runbook("loop-stopped"), Looping(host)
    limits = ("--max-failures", "2", "--max-backoff", "0", "--sleep", "0")
    done = looping.loop("--continuous", "--command", looping.command("echo no such goal", "exit 3"), *limits)
    assert done.returncode == Exit.FAILURE_LIMIT
    assert told(host) == {"loop_stopped"}
    page.follow(host, "How to confirm")
    start = {
        "systemctl start kloros-loop.service": lambda: looping.loop(
            "--command", looping.good(), "--iterations", "1", *limits
        )
    }
    page.follow(host, "How to mend", start)
    assert told(host) == set()


def test_the_loop_leaves_no_new_archive(host: Host) -> None:
    page, looping = Runbook("archives-stale"), Looping(host)
    looping.loop("--command", looping.command("echo nothing to do"), "--iterations", "3", "--sleep", "0")
    assert told(host) == {"archives_stale"}
    page.follow(host, "How to confirm", cwd=looping.tree)
    start = {"systemctl start kloros-loop.service": lambda: looping.loop("--command", looping.good(), "--iterations", "1")}
    page.follow(host, "How to mend", start)
    assert told(host) == set()


def test_the_alerts_themselves_are_missing(host: Host) -> None:
    """What is on the host; Prometheus and Alertmanager are in test_alerting.py."""
    host.decided()
    Runbook("alerts-missing").follow(host, "How to confirm")


@pytest.mark.parametrize("name", OURS)
def test_a_page_has_each_part_in_order(name: str) -> None:
    assert Runbook(name).headings == HEADINGS


def test_what_health_advises_is_a_command() -> None:
    for rule in RULES:
        words = [word for word in rule.advice.split() if not word.startswith("-") and word not in ("off", "on")]
        if words[0] == "klorosctl":
            asked = [PYTHON, "-m", "orchestration.klorosctl", *words[1:], "--help"]
            assert subprocess.run(asked, cwd=TOP, capture_output=True, check=False).returncode == 0, rule.advice
