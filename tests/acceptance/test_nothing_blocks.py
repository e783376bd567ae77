"""One thing that is broken, by hand or by a command, holds up nothing but itself."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import PYTHON, Host, script

OPEN_NOW = timedelta(minutes=-30)
REPORT = 'echo "{}" >"$KLR_CYCLE_DIR/artifacts/report.json"'


@pytest.fixture(autouse=True)
def stepwise(host: Host) -> None:
    host.stepwise()


def phase(host: Host, *lines: str) -> None:
    host.set(KLR_PHASE_COMMAND=script(host.home, "phase.sh", [*lines, REPORT]), **host.window(opens_in=OPEN_NOW))


def dream(host: Host, *lines: str) -> None:
    host.set(KLR_DREAM_COMMAND=script(host.home, "dream.sh", lines or ("exit 0",)), KLR_DREAM_BACKOFF="0")


def settled(host: Host) -> list[tuple[str, str, bool]]:
    return [(job, state, at is not None) for job, state, at in host.rows("SELECT job, state, settled_at FROM cycles")]


def test_an_intent_that_cannot_be_filed_keeps_no_cycle_from_being_started(host: Host) -> None:
    """The runner of a queued cycle was started only after every file had been moved."""
    phase(host)
    host.intend("mystery")
    (host.state / "intents" / "processed").mkdir()
    (host.state / "intents" / "processed" / "unknown").write_text("no folder")
    for _ in range(2):
        assert host.tick().returncode == Exit.UNWRITABLE
        assert (host.state / "kick" / "cycle").exists()
        (host.state / "kick" / "cycle").unlink()
    history = [json.loads(line) for line in (host.state / "history.jsonl").read_text().splitlines()]
    assert [tick["decision"] for tick in history] == ["phase", "noop"]


def test_a_folder_in_place_of_the_manifest_does_not_keep_a_cycle_from_being_settled(host: Host) -> None:
    phase(host, 'cd "$KLR_CYCLE_DIR"', "rm manifest.json", "mkdir manifest.json")
    host.decided()
    host.run_queued()
    assert settled(host) == [("phase", "succeeded", True)]
    assert "phase_done_today" in host.reasons()


def test_a_broken_baseline_answers_no_promotion_and_holds_up_no_phase(host: Host) -> None:
    baseline = host.state / "baseline" / "baseline.json"
    dream(host, f"mkdir -p {baseline.parent}", f"echo broken >{baseline}")
    host.promote("one")
    host.decided()
    host.run_queued()
    assert not (host.state / "promotions_ack" / "one_ack.json").exists()
    assert host.rows("SELECT state, failures FROM promotions") == [("unacked", 1)]
    assert "is no baseline" in str(host.rows("SELECT reason FROM promotions"))
    assert host.run("run_cycle").returncode == 0  # the next one does not even begin
    assert host.rows("SELECT state FROM cycles") == [("succeeded",), ("failed",)]
    phase(host)
    assert host.decided()["decision"] == "phase"
    baseline.unlink()
    dream(host)
    for _ in range(3):
        host.run_queued()
    assert host.ack("one")["accepted"]
    assert json.loads(baseline.read_text())["promotions"] == ["one"]


@pytest.mark.parametrize("folder", ["promotions", "promotions_ack"])
def test_a_folder_of_promotions_that_cannot_be_used_holds_up_no_phase(host: Host, folder: str) -> None:
    phase(host)
    host.state.mkdir(exist_ok=True)
    (host.state / folder).write_text("no folder")
    done = host.tick()
    assert done.returncode == Exit.UNWRITABLE
    assert f"{folder} can't be listed" in done.stderr
    assert host.rows("SELECT job, state FROM cycles") == [("phase", "queued")]


def test_an_ack_that_cannot_be_written_holds_up_no_phase(host: Host) -> None:
    phase(host)
    (host.promote("one")).write_text('{"schema": "v9"}')
    acks = host.state / "promotions_ack"
    acks.symlink_to(host.home / "nowhere" / "acks")
    assert host.tick().returncode == Exit.UNWRITABLE
    assert host.rows("SELECT job, state FROM cycles") == [("phase", "queued")]
    acks.unlink()
    assert host.tick().returncode == Exit.DONE
    assert not host.ack("one")["accepted"]
    assert host.counter("kloros_promotions_total", 'verdict="invalid"') == 1


def test_a_snapshot_that_is_no_file_of_ours_is_not_read(host: Host) -> None:
    """Root reads it before it becomes the owner of the state folder."""
    host.decided()
    snapshot = host.state / "settings.snapshot.json"
    elsewhere = snapshot.rename(host.home / "elsewhere.json")
    elsewhere.write_text(elsewhere.read_text().replace('"orchestration_mode": "enabled"', '"orchestration_mode": "theirs"'))
    snapshot.symlink_to(elsewhere)
    assert host.tick().returncode == Exit.DONE
    snapshot.unlink()
    os.mkfifo(snapshot)
    assert host.run("run_once", timeout=20).returncode == Exit.DONE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_believes_no_snapshot_of_another_user(host: Host, tmp_path: Path) -> None:
    """Whoever owns the state folder could otherwise choose the commands that root's tick runs."""
    host.decided()
    snapshot = host.state / "settings.snapshot.json"
    snapshot.write_text(snapshot.read_text().replace('"orchestration_mode": "enabled"', '"orchestration_mode": "theirs"'))
    assert host.tick().returncode == Exit.DISABLED, "the test's premise: what stands there is believed"
    os.chown(snapshot, 12345, 12345)
    assert host.tick().returncode == Exit.DONE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_root_becomes_an_owner_without_a_name(tmp_path: Path) -> None:
    """As of a container's volume."""
    os.chown(tmp_path, 54321, 54322)
    act = "wiring.become_owner(sys.argv[1]); print(os.getresuid(), os.getgroups())"
    code = f"import os, sys; from orchestration import wiring; {act}"
    done = subprocess.run([PYTHON, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout == "(54321, 54321, 54321) [54322]\n", done.stderr


def test_a_tick_that_fails_is_accounted_for_and_named_as_the_dates_reason(host: Host) -> None:
    host.set(**host.window(opens_in=OPEN_NOW))
    host.decided()
    (host.state / "intents").rmdir() if (host.state / "intents").exists() else None
    (host.state / "intents").write_text("no folder")
    for _ in range(2):
        assert host.tick().returncode == Exit.UNWRITABLE
    (host.state / "intents").unlink()
    host.decided()
    history = [json.loads(line) for line in (host.state / "history.jsonl").read_text().splitlines()]
    assert [(tick["decision"], tick["exit_code"]) for tick in history[1:3]] == [("skipped", 74)] * 2
    assert "intents can't be listed" in history[1]["reasons"][0]["evidence"]
    assert host.counter("kloros_orchestrator_skipped_total", 'reason="failed"') == 2


def test_history_goes_on_when_the_store_is_replaced(host: Host) -> None:
    """The numbers begin anew, or repeat: what the file lacks is told by the ticks' ids."""
    first = [host.decided()["tick_id"] for _ in range(3)]
    backup = (host.state / "kloros.db").read_bytes()
    first += [host.decided()["tick_id"] for _ in range(2)]
    (host.state / "kloros.db").write_bytes(backup)
    restored = [host.decided()["tick_id"] for _ in range(2)]
    (host.state / "kloros.db").unlink()
    anew = [host.decided()["tick_id"] for _ in range(2)]
    lines = [json.loads(line) for line in (host.state / "history.jsonl").read_text().splitlines()]
    assert [line["tick_id"] for line in lines] == [*first, *restored, *anew]


def test_a_promotion_that_succeeded_cycles_never_answer_is_parked(host: Host) -> None:
    """The command removes what it was handed, so nobody knows what was tried: that must not go on for ever."""
    dream(host, 'rm -rf "$KLR_CYCLE_DIR"')
    host.set(KLR_DREAM_PARK_AFTER="2")
    host.promote("one")
    host.decided()
    for _ in range(3):
        host.run_queued()
    assert host.rows("SELECT state FROM cycles") == [("succeeded",)] * 2
    assert host.rows("SELECT state, failures FROM promotions") == [("parked", 2)]
    assert "parked" in host.reasons()


def test_settings_that_cannot_be_remembered_are_a_warning_and_no_failure(host: Host) -> None:
    (host.state / "settings.snapshot.json").mkdir(parents=True)
    done = host.tick()
    assert done.returncode == Exit.DONE, done.stderr
    assert "read anew by every tick" in done.stderr


def test_a_store_that_is_kept_when_a_cycle_ends_costs_time_and_not_the_result(host: Host, tmp_path: Path) -> None:
    (host.state / "kick").mkdir(parents=True, exist_ok=True)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    host.set(KLR_LAUNCHER="systemd", KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", [f"read _ < {gate}"]))
    host.promote("p")
    host.decided()
    runner = subprocess.Popen(host.command("run_cycle"), env=host.environ, stderr=subprocess.PIPE, text=True)
    with open(gate, "w") as opened, sqlite3.connect(host.state / "kloros.db", isolation_level=None) as kept:
        kept.execute("BEGIN IMMEDIATE")
        opened.write("go\n")
        opened.close()
        assert runner.stderr is not None
        while "trying again" not in (line := runner.stderr.readline()):
            assert line, "the runner ended"
        kept.execute("ROLLBACK")
    runner.communicate()
    assert runner.returncode == 0
    assert host.rows("SELECT state FROM cycles") == [("succeeded",)]


def test_a_tick_that_fails_after_it_has_decided_is_nowhere_recorded_as_one_that_went_well(host: Host) -> None:
    host.promote("one").unlink()
    (host.state / "promotions").rmdir()
    (host.state / "promotions").write_text("in the way of the folder")
    for _ in range(3):
        assert host.tick().returncode == Exit.UNWRITABLE
    assert host.rows("SELECT decision, exit_code FROM ticks") == [("noop", Exit.UNWRITABLE)] * 3
    lines = (host.state / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["exit_code"] for line in lines] == [Exit.UNWRITABLE] * 3
    latest = json.loads((host.state / "latest.json").read_text())
    assert (latest["verdict"], latest["causes"][0]["condition"]) == ("failing", "tick_failing")
