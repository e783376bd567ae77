"""The continuous loop as a process: how it waits, how it is stopped, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestration.exits import Exit
from orchestration.host.lock import FileLock
from orchestration.host.process_tree import all_processes
from tests.acceptance.host import Host, script
from tests.acceptance.looping import PAUSE, Looping, mentions
from tests.waiting import until

HANGS = "while [ ! -e go ]; do sleep 0.02; done"


@pytest.fixture
def looping(host: Host) -> Looping:
    return Looping(host)


def wait_of(row: dict[str, str]) -> float:
    """Return the seconds from a row's end to its next run."""
    ended, next_run = (datetime.fromisoformat(row[name]) for name in ("ended_at", "next_run_at"))
    return (next_run - ended).total_seconds()


# waits


def test_failures_in_a_row_wait_longer_and_longer_also_without_sleep(looping: Looping) -> None:
    for _ in range(6):
        looping.loop("--command", "false", "--sleep", "0", "--max-failures", "0")
        ages(looping, hours=1)
    assert [wait_of(row) for row in looping.rows()] == [60, 300, 900, 1800, 1800, 1800]


def ages(looping: Looping, *, hours: int) -> None:
    """Let the iterations so far be older."""

    def earlier(text: str) -> str:
        return f"{datetime.fromisoformat(text) - timedelta(hours=hours):%Y-%m-%dT%H:%M:%S.%fZ}"

    with sqlite3.connect(looping.host.state / "kloros.db") as connection:
        connection.create_function("earlier", 1, earlier)
        connection.execute("UPDATE iterations SET ended_at = earlier(ended_at), next_run_at = earlier(next_run_at)")


def test_the_longest_wait_is_settable(looping: Looping) -> None:
    looping.loop("--command", "false", "--sleep", "0", "--max-backoff", "7", "--backoff", "10,20")
    assert [wait_of(row) for row in looping.rows()] == [7]


def test_it_sleeps_between_two_iterations_and_not_after_the_last(looping: Looping) -> None:
    looping.loop("--command", "true", "--iterations", "2", "--sleep", "3")
    first, second = looping.rows()
    assert datetime.now(UTC) - datetime.fromisoformat(second["ended_at"]) < timedelta(seconds=3)
    assert (wait_of(first), second["next_run_at"]) == (3, None)
    assert second["started_at"] >= first["next_run_at"]


def test_jitter_lengthens_a_wait_by_its_part_at_most(looping: Looping) -> None:
    looping.loop("--command", "false", "--sleep", "0", "--jitter", "0.5", "--seed", "3")
    assert 60 < wait_of(looping.rows()[0]) <= 90


def test_a_success_ends_the_row_of_failures(looping: Looping) -> None:
    command = looping.command("[ $RUN_CYCLE_ITERATION = 3 ]")
    flags = ("--iterations", "4", "--sleep", "0", "--backoff", "0.01,0.3", "--max-failures", "3", "--archives", "")
    assert looping.loop("--command", command, *flags).returncode == Exit.FAILED
    assert looping.statuses() == ["failed", "failed", "success", "failed"]
    assert [wait_of(row) for row in looping.rows()] == [0.01, 0.3, 0, 0.01]


def test_the_wait_after_a_failure_survives_a_restart(looping: Looping) -> None:
    looping.loop("--command", "false", "--sleep", "0", "--backoff", "3")
    with looping.running("--command", looping.good(), "--sleep", "0") as loop:
        looping.waits_for("waiting")
        assert looping.latest()["next_run_at"] == looping.rows()[0]["next_run_at"]
        assert loop.wait(30) == Exit.DONE
    first, second = looping.rows()
    assert second["started_at"] >= first["next_run_at"]


def test_at_the_failure_limit_it_gives_up_with_an_alert_also_across_restarts(looping: Looping) -> None:
    flags = ("--command", "false", "--sleep", "0", "--max-backoff", "0", "--max-failures", "3")
    assert looping.loop(*flags).returncode == Exit.FAILED
    done = looping.loop(*flags, "--continuous")
    assert done.returncode == Exit.FAILURE_LIMIT
    assert looping.statuses() == ["failed"] * 3
    alert = json.loads(next(line for line in done.stderr.splitlines() if '"loop.failed"' in line))
    assert alert["priority"] == "critical"


def test_at_the_failure_limit_no_run_is_planned_and_a_start_soon_after_still_waits(looping: Looping) -> None:
    flags = ("--command", "false", "--sleep", "0", "--backoff", "0.01,30", "--max-failures", "2", "--iterations", "2")
    assert looping.loop(*flags).returncode == Exit.FAILURE_LIMIT
    first, second = looping.rows()
    assert (wait_of(first), second["next_run_at"]) == (0.01, None)
    with looping.running(*flags):
        looping.waits_for("waiting")


def test_a_loop_that_is_asked_to_stop_plans_no_run(looping: Looping) -> None:
    with looping.running("--command", looping.command(HANGS), "--continuous") as loop:
        looping.waits_for("running")
        loop.send_signal(signal.SIGTERM)
        (looping.tree / "go").touch()
        assert loop.wait(30) == Exit.DONE
    assert [row["next_run_at"] for row in looping.rows()] == [None]


def test_maintenance_holds_the_loop(looping: Looping) -> None:
    looping.host.run("klorosctl", "maintenance", "on")
    with looping.running("--command", looping.good()) as loop:
        looping.waits_for("maintenance")
        assert looping.rows() == []
        looping.host.run("klorosctl", "maintenance", "off")
        assert loop.wait(30) == Exit.DONE


def test_a_loop_may_not_run_where_ticks_may_not(looping: Looping) -> None:
    looping.host.state.mkdir()
    (looping.host.state / "killswitch").touch()
    assert looping.loop("--command", "true").returncode == Exit.HALTED
    looping.host.set(KLR_ORCHESTRATION_MODE="off")
    assert looping.loop("--command", "true").returncode == Exit.DISABLED
    assert os.listdir(looping.host.state) == ["killswitch"]


def test_the_kill_switch_ends_a_wait(looping: Looping) -> None:
    with looping.running("--command", looping.good(), "--continuous") as loop:
        looping.waits_for("waiting")
        (looping.host.state / "killswitch").touch()
        assert loop.wait(10) == Exit.HALTED


# stopping


def test_the_stop_file_keeps_an_iteration_from_starting(looping: Looping) -> None:
    (looping.tree / "stop").touch()
    done = looping.loop("--command", looping.good(), "--stop-file", "stop", "--continuous")
    assert (done.returncode, looping.rows()) == (Exit.DONE, [])


def test_the_stop_file_ends_a_wait_within_a_second(looping: Looping) -> None:
    with looping.running("--command", looping.good(), "--stop-file", "stop", "--continuous") as loop:
        looping.waits_for("waiting")
        began = time.monotonic()
        (looping.tree / "stop").touch()
        assert loop.wait(10) == Exit.DONE
        assert time.monotonic() - began < 1
    assert looping.statuses() == ["success"]


def test_the_stop_file_lets_the_current_iteration_finish(looping: Looping) -> None:
    with looping.running("--command", looping.command(HANGS), "--stop-file", "stop", "--continuous") as loop:
        looping.waits_for("running")
        (looping.tree / "stop").touch()
        (looping.tree / "go").touch()
        assert loop.wait(10) == Exit.DONE
    assert looping.statuses() == ["degraded"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_lets_the_current_cycle_finish(looping: Looping, number: signal.Signals) -> None:
    with looping.running("--command", looping.command(HANGS), "--continuous") as loop:
        looping.waits_for("running")
        loop.send_signal(number)
        PAUSE.wait(1)  # longer than the runner needs to see a cancellation
        assert loop.poll() is None
        (looping.tree / "go").touch()
        assert loop.wait(10) == Exit.DONE
    assert looping.statuses() == ["degraded"]
    assert looping.latest()["state"].startswith("ended")


def test_a_second_signal_cancels_the_current_cycle(looping: Looping) -> None:
    with looping.running("--command", looping.command(HANGS), "--continuous") as loop:
        looping.waits_for("running")
        loop.send_signal(signal.SIGTERM)
        loop.send_signal(signal.SIGINT)
        assert loop.wait(10) == Exit.DONE
    assert looping.statuses() == ["interrupted"]
    assert mentions(str(looping.tree / "job.sh")) == []
    assert looping.host.rows("SELECT state FROM cycles") == [("cancelled",)]


def test_the_stop_timeout_cancels_it_as_well(looping: Looping) -> None:
    with looping.running("--command", looping.command(HANGS), "--continuous", "--stop-timeout", "0.5") as loop:
        looping.waits_for("running")
        loop.send_signal(signal.SIGTERM)
        assert loop.wait(10) == Exit.DONE
    assert looping.statuses() == ["interrupted"]


def test_klorosctl_cancels_it_and_the_loop_goes_on(looping: Looping) -> None:
    command = looping.command(f"[ $RUN_CYCLE_ITERATION = 2 ] || {HANGS}")
    with looping.running("--command", command, "--iterations", "2", "--sleep", "0") as loop:
        looping.waits_for("running")
        assert looping.host.run("klorosctl", "cancel", "1").returncode == Exit.DONE
        assert loop.wait(10) == Exit.DONE
    assert looping.statuses() == ["interrupted", "degraded"]


def test_prerequisites_are_cancelled_too(looping: Looping) -> None:
    with looping.running("--command", "true", "--prerequisites", looping.command("touch begun", HANGS)) as loop:
        until((looping.tree / "begun").exists, "the prerequisites run")
        assert looping.latest()["state"] == "prerequisites"
        loop.send_signal(signal.SIGTERM)
        loop.send_signal(signal.SIGINT)  # a second one of the same number may merge with the first
        assert loop.wait(10) == Exit.DONE
    assert looping.statuses() == ["interrupted"]


def test_a_signal_ends_a_wait(looping: Looping) -> None:
    with looping.running("--command", looping.good(), "--continuous") as loop:
        looping.waits_for("waiting")
        loop.send_signal(signal.SIGTERM)
        assert loop.wait(5) == Exit.DONE
    assert looping.statuses() == ["success"]


# others


def test_a_second_loop_on_the_same_state_is_turned_away(looping: Looping) -> None:
    with looping.running("--command", looping.command(HANGS)):
        looping.waits_for("running")
        done = looping.loop("--command", "true")
        assert done.returncode == Exit.LOCK_HELD
        assert "loop.lock is locked by" in done.stderr
    assert len(looping.host.rows("SELECT 1 FROM iterations")) == 1


def test_a_loop_after_a_killed_one_waits_until_what_that_ran_is_gone(looping: Looping) -> None:
    with looping.running("--command", looping.command("touch begun", HANGS)) as killed:
        until((looping.tree / "begun").exists, "the command runs")
        (keeper,) = (process.pid for process in all_processes() if process.parent == killed.pid)
        os.kill(keeper, signal.SIGSTOP)  # a busy machine lets it wait as well
        killed.kill()
        killed.wait()
    with looping.running("--command", looping.good(), "--sleep", "0", "--max-backoff", "0") as loop:
        try:
            until(lambda: waits_for_a_lock(loop.pid) or loop.poll() is not None, "it waits for the lock")
        finally:
            os.kill(keeper, signal.SIGCONT)
        assert loop.wait(30) == Exit.DONE, looping.errors.read_text()
    assert looping.statuses() == ["lost", "success"]


def waits_for_a_lock(pid: int) -> bool:
    """Ask the kernel whether a process waits for a lock of a file (proc_locks(5))."""
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if " -> " in line]
    return str(pid) in [words[5] for words in waiting]


def test_the_loop_runs_no_cycle_beside_another(looping: Looping) -> None:
    looping.host.stepwise()
    looping.host.promote("p")
    looping.host.set(KLR_DREAM_COMMAND=script(looping.tree, "dream.sh", ["date +%s.%N > dream"]))
    assert looping.host.decided()["decision"] == "dream_cycle"
    done = looping.loop("--command", looping.command("date +%s.%N > loop"))
    assert done.returncode == Exit.DONE
    assert float((looping.tree / "loop").read_text()) > float((looping.host.state / "cycles/cycle_00001/dream").read_text())
    assert looping.rows()[0]["cycle"] == 2


def test_no_iteration_is_queued_while_another_cycle_runs(looping: Looping) -> None:
    looping.host.stepwise()
    looping.host.promote("p")
    looping.host.set(KLR_DREAM_COMMAND=looping.command(f"cd {looping.tree}", HANGS, name="dream.sh"))
    looping.host.decided()
    runner = subprocess.Popen(looping.host.command("run_cycle"), env=looping.host.environ, stderr=subprocess.DEVNULL)
    until(lambda: looping.host.rows("SELECT 1 FROM cycles WHERE state = 'running'"), "the D-REAM cycle runs")
    with looping.running("--command", looping.good()) as loop:
        looping.waits_for("held by another cycle")
        assert looping.host.rows("SELECT job FROM cycles") == [("dream",)]
        (looping.tree / "go").touch()
        assert loop.wait(20) == Exit.DONE
    assert runner.wait() == 0
    assert looping.statuses() == ["success"]


def test_a_cycle_whose_other_runner_was_killed_is_lost_and_the_loop_goes_on(looping: Looping) -> None:
    """A runner that a tick started may be quicker than the loop. Killed, it leaves a cycle that no runner is at."""
    (looping.host.state / "locks").mkdir(parents=True)
    with looping.running("--command", looping.good(), "--iterations", "2", "--sleep", "0", "--max-backoff", "0") as loop:
        with FileLock(str(looping.host.state / "locks" / "runner.lock")).held("another runner"):
            looping.waits_for("running")
            with sqlite3.connect(looping.host.state / "kloros.db", timeout=20) as connection:
                claimed = connection.execute("UPDATE cycles SET state = 'running', started_at = queued_at, runner = '{}'")
                assert claimed.rowcount == 1
        assert loop.wait(20) == Exit.DONE
    assert [(row["status"], row["cycle"]) for row in looping.rows()] == [("lost", 1), ("success", 2)]


def test_a_tick_starts_nothing_beside_an_iteration(looping: Looping) -> None:
    looping.host.stepwise()
    with looping.running("--command", looping.command(HANGS)) as loop:
        looping.waits_for("running")
        looping.host.promote("p")
        assert looping.host.reasons() == ["no_maintenance", "cycle_active"]
        (looping.tree / "go").touch()
        assert loop.wait(10) == Exit.DONE


def test_systemd_is_told(looping: Looping) -> None:
    import socket

    path = str(looping.host.home / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(path)
        heard.settimeout(10)
        looping.host.set(NOTIFY_SOCKET=path)
        with looping.running("--command", looping.command(HANGS, 'echo "$NOTIFY_SOCKET" > told')) as loop:
            assert heard.recv(100) == b"READY=1"
            looping.waits_for("running")
            for _ in range(4):  # also while a command runs
                assert heard.recv(100) == b"WATCHDOG=1"
            (looping.tree / "go").touch()
            assert loop.wait(10) == Exit.DONE
    assert (looping.tree / "told").read_text() == "\n"


# kills


def test_a_killed_loop_is_ended_by_the_next_one(looping: Looping) -> None:
    mark = f"sleep 97{os.getpid()}"
    with looping.running("--command", looping.command(f"setsid {mark} &", mark)) as loop:
        looping.waits_for("running")
        until(lambda: len(mentions(mark.replace(" ", "\0"))) == 2, "the command runs")
        loop.kill()
        loop.wait()
    until(lambda: not mentions(mark.replace(" ", "\0")), "no process survives")
    until(lambda: looping.loop("--command", looping.good(), "--max-backoff", "0").returncode == Exit.DONE, "the next one")
    assert looping.statuses() == ["lost", "success"]
    assert looping.rows()[0]["cycle"] == 1


def test_whoever_reads_meanwhile_reads_whole_documents(looping: Looping) -> None:
    with looping.running("--command", "true", "--iterations", "60", "--sleep", "0") as loop:
        states = set()
        while loop.poll() is None:
            states.add(looping.latest().get("state"))
            looping.terminated_rows()
        assert loop.returncode == Exit.DONE
    assert {"prerequisites", "running"} <= states


def test_a_torn_last_line_is_cut_off_and_a_row_that_is_there_not_doubled(looping: Looping) -> None:
    looping.loop("--command", "true")
    whole = looping.history.read_text()
    with sqlite3.connect(looping.host.state / "kloros.db") as connection:  # killed before it noted that the row is written
        connection.execute("UPDATE iterations SET written = 0")
    looping.history.write_text(whole + '{"timestamp": "20')
    looping.loop("--command", "true")
    assert looping.history.read_text().startswith(whole)
    assert [row["iteration"] for row in looping.rows()] == [1, 2]


def test_a_cycle_that_ended_well_under_a_killed_loop_counts_as_it_ended(looping: Looping) -> None:
    looping.loop("--command", looping.good())
    before = looping.rows()
    plan = {"mode": "m", "goal": "g", "cap_writes": None, "archives": "", "log_path": before[0]["log_path"]}
    with sqlite3.connect(looping.host.state / "kloros.db") as connection:  # killed after the runner, before the row
        connection.execute(
            "UPDATE iterations SET status = NULL, line = NULL, written = 0, plan = ?",
            (json.dumps({**plan, "prerequisites": [], "known": []}),),
        )
    looping.history.write_text("")
    looping.loop("--command", looping.good())
    assert looping.statuses() == ["success", "success"]
    assert looping.rows()[0]["cycle"] == before[0]["cycle"]
    assert looping.host.counter("kloros_cycles_total", 'job="loop",result="succeeded"') == 2


def test_a_queued_cycle_of_a_killed_loop_is_never_run(looping: Looping) -> None:
    looping.loop("--command", looping.command("echo once >> ran"))
    plan = {"mode": "m", "goal": "", "cap_writes": None, "archives": "", "log_path": looping.rows()[0]["log_path"]}
    with sqlite3.connect(looping.host.state / "kloros.db") as connection:  # killed between queueing and claiming
        connection.execute("UPDATE cycles SET state = 'queued', started_at = NULL, ended_at = NULL, settled_at = NULL")
        connection.execute(
            "UPDATE iterations SET status = NULL, line = NULL, written = 0, plan = ?",
            (json.dumps({**plan, "prerequisites": [], "known": []}),),
        )
    looping.loop("--command", "true")
    assert looping.statuses()[1:] == ["interrupted", "degraded"]
    assert (looping.tree / "ran").read_text() == "once\n"


def test_a_row_says_the_truth_about_its_times(looping: Looping) -> None:
    began = datetime.now(UTC)
    looping.loop("--command", looping.command("sleep 0.3"))
    (row,) = looping.rows()
    assert began < datetime.fromisoformat(row["started_at"]) < datetime.fromisoformat(row["ended_at"]) < datetime.now(UTC)
    assert 0.3 <= row["duration_seconds"] < 5
    assert Path(row["log_path"]).parent == looping.logs
