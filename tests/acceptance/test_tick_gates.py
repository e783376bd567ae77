"""What a tick does before its lock: settings, mode, kill switch; and when another holds the lock."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.waiting import until


def test_every_fault_in_the_settings_is_listed_and_nothing_is_touched(host: Host) -> None:
    host.configure('[phase]\nmissed = "25:00"\n[dream]\ntrial_rums = 3\n[intents]\nper_tick = 0\n')
    host.set(KLR_PHASE_TIMEOUT="soon")
    before = host.snapshot()
    done = host.tick()
    assert done.returncode == Exit.SETTINGS_INVALID
    message = json.loads(done.stderr)["message"]
    assert "4 settings are invalid" in message
    assert f"{host.config}: phase.missed = '25:00'" in message
    assert f"{host.config}: dream.trial_rums = 3" in message
    assert "write trial_runs instead" in message
    assert f"{host.config}: intents.per_tick = 0" in message
    assert "KLR_PHASE_TIMEOUT: phase.timeout = 'soon'" in message
    assert host.snapshot() == before


def test_a_fault_is_told_where_it_was_written_and_not_for_what_follows_from_it(host: Host) -> None:
    host.set(KLR_STATE_DIR="relative")
    message = json.loads(host.tick().stderr)["message"]
    assert message.startswith("a setting is invalid; nothing was done:\n  KLR_STATE_DIR: state_dir = 'relative'")


def test_a_fault_between_two_settings_is_listed_beside_one_of_another(host: Host) -> None:
    host.set(KLR_PHASE_WINDOW_OPENS="03:00", KLR_PHASE_WINDOW_CLOSES="03:00")
    host.configure("dream = 3\n[phase.domains.unit]\ntimeout = 5\n[promotions.bounds]\nlr = [2, 1]\n")
    message = json.loads(host.tick().stderr)["message"]
    assert "4 settings are invalid" in message
    assert "KLR_PHASE_WINDOW_CLOSES: phase.window_closes" in message
    assert "the same: such a window has no hours" in message
    assert "phase.domains.unit.command" in message
    assert 'write for example command = ["pytest", "-q"]' in message
    assert "write its settings under a line [dream]" in message
    assert "bounds.lr: the lowest value" in message


@pytest.mark.parametrize("mode", ["disabled", "Enabled", "enabled ", "", "1"])
def test_only_exactly_enabled_enables(host: Host, mode: str) -> None:
    host.set(KLR_ORCHESTRATION_MODE=mode)
    assert host.tick().returncode == Exit.DISABLED


def test_disabled_is_the_default_and_makes_no_state(host: Host) -> None:
    del host.environ["KLR_ORCHESTRATION_MODE"]
    assert host.tick().returncode == Exit.DISABLED
    assert not host.state.exists()


def test_a_disabled_tick_is_accounted_for_without_taking_the_lock(host: Host) -> None:
    host.decided()
    host.set(KLR_ORCHESTRATION_MODE="disabled")
    with open(host.state / "locks" / "orchestrator.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert host.tick().returncode == Exit.DISABLED
    assert host.counter("kloros_orchestrator_skipped_total", 'reason="disabled"') == 1
    assert host.rows("SELECT decision, exit_code, blocker FROM ticks ORDER BY tick DESC LIMIT 1") == [
        ("skipped", 2, "disabled")
    ]


def test_the_kill_switch_halts(host: Host) -> None:
    host.decided()
    (host.state / "killswitch").touch()
    done = host.tick()
    assert done.returncode == Exit.HALTED
    assert "unhalt" in done.stderr
    assert host.counter("kloros_orchestrator_skipped_total", 'reason="halted"') == 1


def test_maintenance_is_a_noop_with_that_reason(host: Host) -> None:
    host.decided()
    host.promote("waiting")
    (host.state / "maintenance_mode").touch()
    record = host.decided()
    assert record["decision"] == "noop"
    assert record["reasons"][-1]["reason"] == "maintenance_mode"


@pytest.mark.parametrize(
    "record",
    ['{"name": "orchestrator", "pid": 1, "hostname": "elsewhere", "started_at": 1700000000.0}', "gpu:1:1700000000", ""],
    ids=["KLoROS's JSON", "KLoROS's text", "empty"],
)
def test_a_lock_held_by_another_turns_the_tick_away_at_once_whatever_its_record_says(host: Host, record: str) -> None:
    host.decided()
    path = host.state / "locks" / "orchestrator.lock"
    path.write_text(record)
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = host.tick()
        assert path.read_text() == record, "the holder's record is the holder's"
    assert done.returncode == Exit.LOCK_HELD
    assert host.counter("kloros_orchestrator_lock_contention_total") == 1
    assert host.decided()["decision"] == "noop", "a freed lock needs no repair, whatever stands in the file"


def test_who_waits_for_a_cycle_waits_for_the_tick_at_work_too(host: Host) -> None:
    host.decided()
    with (host.state / "locks" / "orchestrator.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(host.command("run_once", "--wait"), env=host.environ, stderr=subprocess.PIPE)
        until(lambda: f"-> FLOCK  ADVISORY  WRITE {waiting.pid} " in Path("/proc/locks").read_text(), what="it waits")
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert waiting.communicate(timeout=30)[1].count(b"tick.idle") == 1
    assert waiting.returncode == Exit.DONE
    assert host.counter("kloros_orchestrator_lock_contention_total") == 0


def test_the_lock_file_stays_and_names_its_last_holder_for_people(host: Host) -> None:
    tick_id = host.decided()["tick_id"]
    record = json.loads((host.state / "locks" / "orchestrator.lock").read_text())
    assert record["holder"] == tick_id
    assert {"boot_id", "pid", "start_time", "host"} <= record.keys()


def test_a_dry_run_changes_no_byte_anywhere(host: Host) -> None:
    host.decided()
    host.promote("valid")
    host.promote("invalid", fitness=-1)
    host.intend("suggest_something")
    host.intend("curiosity_topic")
    before = host.snapshot()
    done = host.tick("--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["decision"] == "dream_cycle"
    assert shown["first"]["refused"] == ["invalid"]
    assert host.snapshot() == before


def test_a_dry_run_before_the_first_tick_makes_nothing(host: Host) -> None:
    before = host.snapshot()
    done = host.tick("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "NOOP" in done.stdout
    assert host.snapshot() == before


def test_a_wrong_flag_is_a_usage_error(host: Host) -> None:
    done = host.tick("--wiat")
    assert done.returncode == Exit.USAGE
    assert "--wiat" in done.stderr


def test_a_store_of_a_newer_release_is_refused(host: Host) -> None:
    host.decided()
    with sqlite3.connect(host.state / "kloros.db") as store:
        store.execute("PRAGMA user_version = 1000")
    store.close()
    done = host.tick()
    assert done.returncode == Exit.STORE_UNREACHABLE
    assert "newer release" in done.stderr


def test_a_state_folder_that_cannot_be_made_is_unwritable(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    host.set(KLR_STATE_DIR=str(tmp_path / "file" / "state"))
    done = host.tick()
    assert done.returncode == Exit.UNWRITABLE
    assert "file/state" in done.stderr


def test_a_defect_of_ours_says_so(host: Host) -> None:
    host.decided()
    with sqlite3.connect(host.state / "kloros.db") as store:
        store.execute("UPDATE facts SET value = 'no date'")
    store.close()
    done = host.tick()
    assert done.returncode == Exit.DEFECT
    assert "defect of ours" in done.stderr


def test_one_readable_line_a_tick(host: Host) -> None:
    lines = host.tick().stderr.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["message"] == "NOOP: outside_phase_window, no_unacked_promotions, no_intents"


def test_history_has_each_tick_once_and_latest_the_last(host: Host) -> None:
    ids = [host.decided()["tick_id"] for _ in range(3)]
    lines = [json.loads(line) for line in (host.state / "history.jsonl").read_text().splitlines()]
    assert [line["tick_id"] for line in lines] == ids
    assert json.loads((host.state / "latest.json").read_text())["tick_id"] == ids[-1]


def test_history_goes_on_after_rotation_and_after_a_torn_line(host: Host) -> None:
    history = host.state / "history.jsonl"
    host.decided()
    history.rename(history.with_name("history.jsonl.1"))
    second = host.decided()["tick_id"]
    with history.open("a") as file:
        file.write('{"tick": 99999, "tick_id": "to')
    third = host.decided()["tick_id"]
    whole = [line for line in history.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["tick_id"] for line in whole] == [second, third]


def test_missing_a_tick_or_running_it_twice_changes_nothing(host: Host) -> None:
    host.set(**host.window(opens_in=timedelta(hours=5)))
    assert [host.decided()["decision"] for _ in range(3)] == ["noop"] * 3
    assert host.rows("SELECT count(*) FROM cycles") == [(0,)]


@pytest.mark.parametrize("setting", ["KLR_PROMOTIONS_DIR", "KLR_ACKS_DIR"])
def test_a_folder_of_promotions_that_cannot_be_listed_is_named_and_no_defect(host: Host, setting: str) -> None:
    host.promote("waits")
    wrong = host.home / "a_file"
    wrong.touch()
    host.set(**{setting: str(wrong)})
    done = host.tick()
    assert done.returncode == Exit.UNWRITABLE
    assert f"{wrong} can't be listed: Not a directory" in json.loads(done.stderr.splitlines()[-1])["message"]


def test_a_tick_that_is_turned_away_answers_in_json_too(host: Host) -> None:
    host.set(KLR_ORCHESTRATION_MODE="disabled")
    assert _answered(host) == (0, "skipped", Exit.DISABLED, ["disabled"]), "no store, no number"
    host.set(KLR_ORCHESTRATION_MODE="enabled")
    host.decided()
    with open(host.state / "locks" / "orchestrator.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert _answered(host) == (2, "skipped", Exit.LOCK_HELD, ["lock_held"])
    (host.state / "killswitch").touch()
    assert _answered(host) == (3, "skipped", Exit.HALTED, ["halted"])


def _answered(host: Host) -> tuple[int, str, int, list[str]]:
    done = host.tick("--json")
    record = json.loads(done.stdout)
    assert record["exit_code"] == done.returncode
    return record["tick"], record["decision"], record["exit_code"], [found["reason"] for found in record["reasons"]]
