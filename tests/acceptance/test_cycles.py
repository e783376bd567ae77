"""From a decision to its consequences: ticks, the real runner, real commands; then files, rows and exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from orchestration import wiring
from orchestration.exits import Exit
from orchestration.host.lock import FileLock
from orchestration.tick.tick import tick
from orchestration.tick.wait import wait
from tests.acceptance.host import Host, script
from tests.waiting import until

OPEN_NOW = timedelta(minutes=-30)
NO_BACKOFF = {"KLR_DREAM_BACKOFF": "0", "KLR_PHASE_BACKOFF": "0"}


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def finished(host: Host, cycle: int) -> bool:
    return bool(host.rows(f"SELECT 1 FROM cycles WHERE cycle = {cycle} AND settled_at IS NOT NULL"))


def state(host: Host, cycle: int) -> str:
    return str(host.rows(f"SELECT state FROM cycles WHERE cycle = {cycle}")[0][0])


@pytest.fixture
def dream(host: Host, tmp_path: Path) -> Callable[..., None]:
    """Give D-REAM a command of these shell lines."""

    def set_command(*lines: str, **more: str) -> None:
        host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", lines), **more)

    return set_command


@pytest.fixture
def phase(host: Host, tmp_path: Path) -> Callable[..., None]:
    """Open the window now, and give PHASE a command of these shell lines."""

    def set_command(*lines: str, **more: str) -> None:
        host.set(KLR_PHASE_COMMAND=script(tmp_path, "phase.sh", lines), **host.window(opens_in=OPEN_NOW), **more)

    return set_command


REPORT = 'echo "{}" > "$KLR_CYCLE_DIR/artifacts/report.json"'


@pytest.mark.parametrize(
    ("lines", "more", "expected", "ended"),
    [
        ([REPORT], {}, Exit.DONE, "succeeded"),
        ([REPORT, "exit 3"], {}, Exit.PHASE_FAILED, "failed"),
        (["exit 0"], {}, Exit.PHASE_FAILED, "failed"),
        (["sleep 60"], {"KLR_PHASE_TIMEOUT": "0.5"}, Exit.PHASE_TIMED_OUT, "timed_out"),
    ],
    ids=["succeeds", "fails", "leaves no report", "passes its deadline"],
)
def test_waiting_for_a_phase_gives_its_typed_code(
    host: Host, phase: Callable[..., None], lines: list[str], more: dict[str, str], expected: Exit, ended: str
) -> None:
    phase(*lines, **more)
    done = host.tick("--wait")
    assert done.returncode == expected, done.stdout + done.stderr
    assert state(host, 1) == ended
    assert host.counter("kloros_cycles_total", f'job="phase",result="{ended}"') == 1


@pytest.mark.parametrize(
    ("lines", "more", "expected", "ended"),
    [
        (["exit 0"], {}, Exit.DONE, "succeeded"),
        (["exit 1"], {}, Exit.DREAM_FAILED, "failed"),
        (["echo '{' > \"$KLR_CYCLE_DIR/artifacts/verdicts.json\""], {}, Exit.DREAM_FAILED, "failed"),
        (["sleep 60"], {"KLR_DREAM_TIMEOUT": "0.5"}, Exit.DREAM_TIMED_OUT, "timed_out"),
    ],
    ids=["succeeds", "fails", "leaves malformed verdicts", "passes its deadline"],
)
def test_waiting_for_a_dream_cycle_gives_its_typed_code(
    host: Host, dream: Callable[..., None], lines: list[str], more: dict[str, str], expected: Exit, ended: str
) -> None:
    dream(*lines, **more)
    host.promote("p")
    done = host.tick("--wait")
    assert done.returncode == expected, done.stdout + done.stderr
    assert state(host, 1) == ended


def test_a_command_that_is_not_there_fails_the_cycle_and_says_so(host: Host) -> None:
    host.set(KLR_DREAM_COMMAND="/nowhere/dream")
    host.promote("p")
    done = host.tick("--wait")
    assert done.returncode == Exit.DREAM_FAILED
    assert "/nowhere/dream" in done.stdout


def test_a_phase_leaves_report_signal_and_an_accounted_date(host: Host, phase: Callable[..., None]) -> None:
    phase(REPORT, 'echo "epoch $KLR_EPOCH"')
    host.tick("--wait")
    (signal_file,) = (host.state / "signals").glob("klr_phase_complete_*.json")
    content = json.loads(signal_file.read_text())
    assert content.keys() >= {"epoch_id", "ts", "report", "sha256"}
    assert signal_file.stat().st_mode & 0o777 == 0o640
    assert Path(content["report"]).read_text() == "{}\n"
    log = (host.state / "cycles" / "cycle_00001" / "logs" / "output.log").read_text()
    assert f"epoch {content['epoch_id']}" in log
    assert host.rows("SELECT result, cycle FROM phase_dates") == [("succeeded", 1)]
    assert "phase_done_today" in host.reasons()


def test_acks_name_the_last_succeeded_phase(host: Host, phase: Callable[..., None], dream: Callable[..., None]) -> None:
    phase(REPORT)
    host.tick("--wait")
    dream("exit 0")
    host.promote("p")
    host.tick("--wait")
    (signal_file,) = (host.state / "signals").glob("*.json")
    said = json.loads(signal_file.read_text())
    ack = host.ack("p")
    assert (ack["phase_epoch"], ack["phase_sha"]) == (said["epoch_id"], said["sha256"])


def test_all_unacked_promotions_go_together_and_each_is_answered_once(host: Host, dream: Callable[..., None]) -> None:
    host.configure("[observer.rules.promotion_cluster]\nenabled = false\n")  # it would ask for a PHASE
    verdicts = (
        '{"schema": "v1", "verdicts": [{"promotion": "good", "accepted": true, "reason": "better", "fitness": 0.9},'
        ' {"promotion": "bad", "accepted": false, "reason": "worse", "fitness": 0.1}]}'
    )
    dream(
        f"echo '{verdicts}' > \"$KLR_CYCLE_DIR/artifacts/verdicts.json\"", 'cp "$KLR_PROMOTIONS" "$KLR_CYCLE_DIR/artifacts/"'
    )
    for stem in ("good", "bad", "silent"):
        host.promote(stem)
    assert host.tick("--wait").returncode == Exit.DONE
    handed = json.loads((host.state / "cycles" / "cycle_00001" / "artifacts" / "promotions.json").read_text())
    assert [one["stem"] for one in handed["promotions"]] == ["bad", "good", "silent"]
    assert host.ack("good") | {"ts": 0} == {
        "promotion_id": "good",
        "accepted": True,
        "phase_epoch": "",
        "phase_sha": "",
        "ts": 0,
        "schema": "v1",
        "cycle": 1,
    }
    assert (host.ack("bad")["accepted"], host.ack("bad")["rejection_reason"]) == (False, "worse")
    assert host.ack("silent")["rejection_reason"] == "no verdict"
    baseline = json.loads((host.state / "baseline" / "baseline.json").read_text())
    assert (baseline["parameters"], baseline["cycle"]) == ({"learning_rate": 0.01}, 1)
    assert host.reasons()[-2:] == ["no_unacked_promotions", "no_intents"]


def test_an_invalid_promotion_is_rejected_without_a_cycle(host: Host) -> None:
    host.promote("hot", changes={"temperature": 9})
    assert host.decided()["decision"] == "noop"
    assert "temperature" in host.ack("hot")["rejection_reason"]
    assert host.rows("SELECT count(*) FROM cycles") == [(0,)]
    assert host.counter("kloros_promotions_total", 'verdict="invalid"') == 1


def test_a_failed_cycle_acks_nothing_and_its_promotions_wait(host: Host, dream: Callable[..., None]) -> None:
    dream("exit 1")
    host.promote("p")
    host.tick("--wait")
    assert not (host.state / "promotions_ack" / "p_ack.json").exists()
    record = host.decided()
    assert record["decision"] == "noop"
    assert "backing_off" in [found["reason"] for found in record["reasons"]]


def test_intents_run_while_promotions_back_off(host: Host, dream: Callable[..., None]) -> None:
    dream("exit 1")
    host.promote("p")
    host.tick("--wait")
    host.intend("curiosity_topic")
    host.tick()  # or the tick that followed the failed cycle takes it first
    until(lambda: host.rows("SELECT cause FROM cycles ORDER BY cycle DESC LIMIT 1") == [("intent",)])


def test_five_failures_in_a_row_park_a_promotion(host: Host, dream: Callable[..., None]) -> None:
    (host.state / "kick").mkdir(parents=True)
    dream("exit 1", **NO_BACKOFF, KLR_LAUNCHER="systemd")
    host.promote("p")
    for _ in range(5):
        assert host.decided()["decision"] == "dream_cycle"
        assert host.run("run_cycle").returncode == 0
    record = host.decided()
    assert record["decision"] == "noop"
    assert "parked" in [found["reason"] for found in record["reasons"]]
    assert host.rows("SELECT state, failures FROM promotions") == [("parked", 5)]


def test_a_long_cycle_stops_no_tick(host: Host, dream: Callable[..., None], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    dream(f"echo started; read _ < {gate}")
    host.promote("p")
    assert host.decided()["decision"] == "dream_cycle"
    until(lambda: state(host, 1) == "running")
    host.intend("suggest_something")
    for _ in range(3):
        began = time.monotonic()
        record = host.decided()
        assert [found["reason"] for found in record["reasons"]][-1] == "cycle_active"
        assert time.monotonic() - began < 10
    assert len((host.state / "suggestions.jsonl").read_text().splitlines()) == 1
    gate.write_text("go\n")
    until(lambda: finished(host, 1))
    assert state(host, 1) == "succeeded"


def test_a_tick_follows_at_once_when_a_cycle_ends(host: Host, dream: Callable[..., None]) -> None:
    dream("exit 0")
    host.promote("p")
    host.decided()
    until(lambda: (host.state / "promotions_ack" / "p_ack.json").exists())


def test_killing_the_runner_leaves_no_process_and_a_lost_cycle(
    host: Host, dream: Callable[..., None], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    dream(f"setsid sleep 600 & echo $! >> {pids}", f"env -i sleep 600 & echo $! >> {pids}", f"echo $$ >> {pids}", "wait")
    host.promote("p")
    host.decided()
    until(lambda: pids.exists() and len(pids.read_text().split()) == 3)
    runner = json.loads(host.rows("SELECT runner FROM cycles")[0][0])
    os.kill(runner["pid"], signal.SIGKILL)
    until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))
    until(lambda: host.decided()["decision"] == "noop" and state(host, 1) == "lost")  # its lock goes when it has exited
    assert host.counter("kloros_orchestrator_reaped_total", 'kind="cycle"') == 1
    assert not (host.state / "promotions_ack").exists()
    manifest = json.loads((host.state / "cycles" / "cycle_00001" / "manifest.json").read_text())
    assert manifest["state"] == "lost"


def test_killing_the_tick_never_touches_the_cycle(host: Host, dream: Callable[..., None], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    dream(f"read _ < {gate}")
    host.promote("p")
    waiting = subprocess.Popen(
        [*host.command("run_once"), "--wait"],
        env=host.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(lambda: (host.state / "cycles" / "cycle_00001" / "logs" / "output.log").exists())
    os.killpg(waiting.pid, signal.SIGKILL)
    waiting.wait()
    gate.write_text("go\n")
    until(lambda: finished(host, 1))
    assert state(host, 1) == "succeeded"


def test_a_queued_cycle_whose_start_was_lost_is_started_by_the_next_tick(host: Host, dream: Callable[..., None]) -> None:
    dream("exit 0", KLR_LAUNCHER="systemd")
    host.promote("p")
    refused = host.tick()
    assert refused.returncode == Exit.FAILED
    assert "kick/cycle" in refused.stderr
    assert state(host, 1) == "queued"
    host.set(KLR_LAUNCHER="detached")
    assert "cycle_active" in host.reasons()
    until(lambda: finished(host, 1))


def test_a_phase_by_intent_outside_the_window_answers_no_date(host: Host, tmp_path: Path) -> None:
    host.set(KLR_PHASE_COMMAND=script(tmp_path, "phase.sh", [REPORT]))
    intent = host.intend("trigger_phase_promotion_cluster", priority=7)
    assert host.tick("--wait").returncode == Exit.DONE
    assert host.rows("SELECT job, cause, phase_date FROM cycles") == [("phase", "intent", None)]
    assert host.rows("SELECT count(*) FROM phase_dates") == [(0,)]
    assert (host.state / "intents" / "processed" / "processed" / intent.name).exists()


def test_an_intents_topic_reaches_the_command(host: Host, dream: Callable[..., None]) -> None:
    dream('echo "topic: $KLR_TOPIC"')
    host.intend("curiosity_memory", topic="why is memory growing")
    host.tick("--wait")
    assert "why is memory growing" in (host.state / "cycles" / "cycle_00001" / "logs" / "output.log").read_text()


def test_the_default_phase_runs_its_domains_and_reports_each(host: Host) -> None:
    host.set(**host.window(opens_in=OPEN_NOW))
    host.configure('[phase.domains.good]\ncommand = ["true"]\n[phase.domains.bad]\ncommand = ["false"]\n')
    assert host.tick("--wait").returncode == Exit.PHASE_FAILED
    report = json.loads((host.state / "cycles" / "cycle_00001" / "artifacts" / "report.json").read_text())
    assert {one["name"]: one["status"] for one in report["domains"]} == {"good": "succeeded", "bad": "failed"}


def test_wait_with_json_prints_the_tick_and_then_the_cycle(host: Host, dream: Callable[..., None]) -> None:
    dream("exit 0")
    host.promote("p")
    done = host.tick("--wait", "--json")
    tick, cycle = (json.loads(line) for line in done.stdout.splitlines())
    assert tick["cycle"] == cycle["cycle"] == 1
    assert cycle["state"] == "succeeded"


def test_waiting_shows_progress_on_a_terminal(host: Host, dream: Callable[..., None], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    dream(f"read _ < {gate}")
    host.promote("p")
    screen, terminal = pty.openpty()
    waiting = subprocess.Popen(
        host.command("run_once", "--wait"), env=host.environ, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    while b"cycle 1 (dream) running, 0:00:00 of 0:30:00" not in shown:
        shown += os.read(screen, 1024)
    gate.write_text("go\n")
    while b"cycle 1 (dream) succeeded: exit code 0" not in shown:
        shown += os.read(screen, 1024)
    assert waiting.wait() == Exit.DONE
    os.close(screen)


def test_waiting_sees_out_a_cycle_that_another_tick_was_first_to_start(
    host: Host, dream: Callable[..., None], tmp_path: Path
) -> None:
    """An intent's hint and a person's `tick --wait` for it race: whoever waits is told how it ended, whichever is first."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    dream(f"read _ < {gate}; exit 3")
    host.promote("p")
    host.decided()
    command = host.command("run_once", "--wait")
    with subprocess.Popen(command, env=host.environ, stdout=subprocess.PIPE, text=True) as waiting:
        until(lambda: host.rows("SELECT 1 FROM ticks WHERE decision = 'noop'"))
        gate.write_text("go\n")
        said, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == Exit.DREAM_FAILED
    assert "cycle 1 (dream) failed: exit code 3" in said


def test_waiting_tells_of_a_cycle_that_was_at_work_and_is_settled_by_now(host: Host, dream: Callable[..., None]) -> None:
    host.stepwise()
    dream("exit 3")
    host.promote("p")
    host.decided()
    with wiring.kernel(wiring.settings(host.environ), host.environ) as kernel:
        record = tick(kernel, "a-tick-that-finds-it-queued")
        host.run_queued()
        assert finished(host, 1)
        assert wait(kernel, record, as_json=False) == Exit.DREAM_FAILED


def test_a_command_runs_in_its_cycles_folder_or_where_the_settings_say(
    host: Host, dream: Callable[..., None], tmp_path: Path
) -> None:
    dream("pwd", **NO_BACKOFF)
    host.intend("curiosity_here")
    host.tick("--wait")
    until(lambda: finished(host, 1))
    folder = host.state / "cycles" / "cycle_00001"
    assert (folder / "logs" / "output.log").read_text() == f"{folder}\n"
    host.set(KLR_DREAM_WORKING_DIR=str(tmp_path))
    host.intend("curiosity_there")
    host.tick("--wait")
    assert (host.state / "cycles" / "cycle_00002" / "logs" / "output.log").read_text() == f"{tmp_path}\n"


def test_verdicts_that_were_changed_after_their_cycle_had_ended_accept_nothing(
    host: Host, dream: Callable[..., None], tmp_path: Path
) -> None:
    (host.state / "kick").mkdir(parents=True)
    accepting = '{"schema": "v1", "verdicts": [{"promotion": "p", "accepted": true}]}'
    dream(f"echo '{accepting}' > \"$KLR_CYCLE_DIR/artifacts/verdicts.json\"", KLR_LAUNCHER="systemd")
    host.promote("p")
    host.decided()
    assert host.run("run_cycle").returncode == 0
    (host.state / "cycles" / "cycle_00001" / "artifacts" / "verdicts.json").unlink()
    host.decided()
    assert host.ack("p")["rejection_reason"] == "no verdict"


def test_waiting_starts_a_runner_again_for_a_cycle_that_none_has_claimed(host: Host, dream: Callable[..., None]) -> None:
    """Where nothing else ticks (a script, CI), nobody else would: the wait had no end."""
    dream("exit 0", KLR_LAUNCHER="detached")
    host.decided()
    host.promote("one")
    with FileLock(str(host.state / "locks" / "runner.lock")).held("one that turns others away"):
        waiting = subprocess.Popen(host.command("run_once", "--wait"), env=host.environ, stdout=subprocess.DEVNULL)
        log = host.state / "logs" / "run_cycle.log"
        until(lambda: log.exists() and "another runner is at work" in log.read_text())
    assert waiting.wait(20) == Exit.DONE
