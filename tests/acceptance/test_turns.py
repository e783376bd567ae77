"""The turns of agents: a lane of their own beside PHASE, D-REAM, the loop and the ticks, under the same rules."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestration.bridge.wake.port import Turn, WakeFailed
from orchestration.bridge.wake.turns import Standing, Turns
from orchestration.configuration import load
from orchestration.cycles import orphan
from orchestration.cycles.cycle import CycleNumber, CycleState
from orchestration.exits import Exit
from orchestration.store.sqlite import SqliteDatabase
from tests.acceptance.host import PYTHON, Host, script
from tests.acceptance.waking import claimed
from tests.waiting import until

HOUR = timedelta(hours=1)
PROMPT = "Zwei Nachrichten warten.\nLies sie."
# Ends on no TERM, and leaves a child in a session of its own; both keep the witness locked.
DEAF = """
import fcntl, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
if not os.fork():
    os.setsid()
print("standing", flush=True)
while True:
    signal.pause()
"""


class Lane:
    """A host with turns on it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.host.stepwise()
        self.host.set(KLR_CYCLES_TERM_GRACE="0.2s")
        self.settings = load(host.environ)
        self.db = SqliteDatabase(str(host.state / "kloros.db"))
        self.turns = Turns(self.settings, host.environ, self.db)
        self.witness = host.home / "witness"
        self.token = os.urandom(8).hex()  # the mark of its processes, which a test beside this one must not end

    def queue(self, *command: str, name: str = "", timeout: timedelta = HOUR) -> CycleNumber:
        turn = Turn(command=command, prompt=PROMPT)
        return self.turns.enqueue(turn, token=self.token + name, timeout=timeout)

    def queue_deaf(self, timeout: timedelta = HOUR) -> CycleNumber:
        return self.queue(PYTHON, "-S", "-c", DEAF, str(self.witness), timeout=timeout)

    def run(self, cycle: CycleNumber) -> subprocess.CompletedProcess[str]:
        return self.host.run("run_cycle", "--wake", str(cycle))

    @contextmanager
    def running(self, cycle: CycleNumber) -> Iterator[subprocess.Popen[bytes]]:
        command = self.host.command("run_cycle", "--wake", str(cycle))
        with subprocess.Popen(command, env=self.host.environ, stderr=subprocess.DEVNULL) as runner:
            try:
                until(lambda: self.look().output.count("standing") == 2 or runner.poll() is not None, "the turn stands")
                yield runner
            finally:
                runner.kill()

    def look(self, name: str = "") -> Standing:
        found = self.turns.look(self.token + name)
        assert found is not None
        return found

    def tree_is_gone(self) -> bool:
        from orchestration.host.lock import FileLock

        return FileLock(str(self.witness)).is_free()

    def locks(self) -> list[str]:
        folder = self.host.state / "locks" / "wake"
        return sorted(os.listdir(folder)) if folder.exists() else []

    def row(self, cycle: CycleNumber) -> tuple[str, bool]:
        ((state, settled),) = self.host.rows(f"SELECT state, settled_at IS NOT NULL FROM cycles WHERE cycle = {cycle}")
        return state, bool(settled)


@pytest.fixture
def lane(host: Host) -> Iterator[Lane]:
    host.decided()
    made = Lane(host)
    yield made
    made.db.close()


def test_a_turn_reads_its_prompt_from_standard_input(lane: Lane) -> None:
    cycle = lane.queue("sh", "-c", 'cat; echo; echo "$KLR_CYCLE $WHO"; stat -c %a "$KLR_CYCLE_DIR/prompt.txt"')
    assert lane.look() == Standing(cycle=cycle, state=CycleState.QUEUED, result=None, output=(), runs=False)

    done = lane.run(cycle)

    assert done.returncode == 0, done.stderr
    seen = lane.look()
    assert seen.state is CycleState.SUCCEEDED
    assert seen.result is not None
    assert seen.result.exit_code == 0
    assert seen.output == (*PROMPT.split("\n"), f"{cycle} ", "600")
    assert seen.ended
    assert lane.row(cycle) == ("succeeded", True)
    assert lane.locks() == []


def test_the_word_prompt_of_a_command_is_the_prompt_and_stands_nowhere_else(lane: Lane) -> None:
    cycle = lane.queue("sh", "-c", 'printf "%s" "$1" | sha256sum; cat', "sh", "{prompt}")
    before = lane.host.run("klorosctl", "show", str(cycle), "--json").stdout

    done = lane.run(cycle)

    assert lane.look().output == (f"{hashlib.sha256(PROMPT.encode()).hexdigest()}  -",)
    assert "{prompt}" in done.stderr
    manifest = (lane.host.state / "cycles" / f"cycle_{cycle:05d}" / "manifest.json").read_text()
    assert json.loads(manifest)["command"][-1] == "{prompt}"
    told = (before, lane.host.run("klorosctl", "show", str(cycle), "--json").stdout, manifest, done.stderr)
    assert not [text for text in told if "Nachrichten" in text]
    assert not [row for row in lane.host.rows("SELECT origin FROM cycles") if "Nachrichten" in row[0]], "it is forgotten"


@pytest.mark.parametrize(
    ("wrong", "holds"),
    [
        ({}, True),
        ({"fence": 8}, False),
        ({"holder": "another"}, False),
        ({"trigger_id": "t2"}, False),
        ({"lapsed": 1}, False),
    ],
)
def test_a_turn_is_queued_only_while_its_claim_holds(lane: Lane, wrong: dict[str, Any], holds: bool) -> None:
    wrong = dict(wrong)
    claim = replace(claimed(lane.host, seconds=-1 if wrong.pop("lapsed", None) else 60), **wrong)
    turn = Turn(command=("true",), prompt=PROMPT)
    if not holds:
        with pytest.raises(WakeFailed, match="holds no more"):
            lane.turns.enqueue(turn, token=lane.token, timeout=HOUR, claim=claim)
        assert lane.turns.look(lane.token) is None
        return
    cycle = lane.turns.enqueue(turn, token=lane.token, timeout=HOUR, claim=claim)
    lane.host.change("UPDATE bridge_wake_states SET holder = 'another'")
    again = lane.turns.enqueue(turn, token=lane.token, timeout=HOUR, claim=claim)
    assert again == cycle, "what is queued is queued, whoever asks"


def test_what_a_turn_is_given_is_in_its_environment_and_not_in_its_manifest(lane: Lane) -> None:
    turn = Turn(command=("sh", "-c", 'echo "$WHO"; pwd'), prompt="", variables=(("WHO", "reviewer"),), working_dir="/usr")
    cycle = lane.turns.enqueue(turn, token=lane.token, timeout=HOUR)
    lane.run(cycle)
    assert lane.look().output == ("reviewer", "/usr")
    manifest = (lane.host.state / "cycles" / f"cycle_{cycle:05d}" / "manifest.json").read_text()
    assert "reviewer" not in manifest
    assert "WHO" in json.loads(manifest)["environment"]


def test_a_token_gives_one_turn_however_often_it_is_queued_and_started(lane: Lane) -> None:
    marks = lane.host.home / "marks"
    cycle = lane.queue("sh", "-c", f"echo ran >>{marks}")
    assert lane.queue("sh", "-c", f"echo ran >>{marks}") == cycle
    assert lane.queue("true", name="-2") != cycle

    for _ in range(3):
        lane.turns.start(cycle)
    until(lambda: lane.look().ended and not lane.host.processes(), "the turn has ended")
    assert lane.run(cycle).returncode == 0

    assert marks.read_text() == "ran\n"
    assert lane.turns.look("turn-3") is None
    assert lane.look("-2").state is CycleState.QUEUED


def test_ticks_decide_as_ever_beside_a_turn_of_an_hour_and_phase_runs(lane: Lane) -> None:
    lane.host.set(**lane.host.window(opens_in=timedelta(minutes=-5)), KLR_DREAM_COMMAND="true")
    cycle = lane.queue_deaf()
    with lane.running(cycle) as runner:
        decided = lane.host.decided()
        assert decided["decision"] == "phase", decided
        lane.host.run_queued()
        assert lane.host.rows("SELECT state, settled_at IS NOT NULL FROM cycles WHERE job = 'phase'") == [("succeeded", 1)]
        assert lane.host.decided()["decision"] == "noop"
        assert "cycle_active" not in lane.host.reasons()
        lane.host.promote("one")
        assert lane.host.decided()["decision"] == "dream_cycle"
        lane.host.run_queued()
        assert lane.look().state is CycleState.RUNNING
        assert lane.look().runs
        status = json.loads(lane.host.run("klorosctl", "status", "--json").stdout)
        assert [one["job"] for one in status["active"]] == ["wake"]
        assert "no runner" not in lane.host.run("klorosctl", "status").stdout
        assert 'kloros_cycle_active{job="wake"} 1' in lane.host.textfile.read_text()
        assert runner.poll() is None

        told = lane.host.run("klorosctl", "cancel", str(cycle), "--json")
        assert json.loads(told.stdout)["outcome"] == "asked", told.stderr
        assert runner.wait(timeout=30) == 0
    assert lane.row(cycle) == ("cancelled", True)
    assert lane.tree_is_gone()


def test_a_turn_runs_beside_a_phase(lane: Lane) -> None:
    blocked = script(lane.host.home, "phase", ["exec sleep 30"])
    lane.host.set(**lane.host.window(opens_in=timedelta(minutes=-5)), KLR_PHASE_COMMAND=blocked)
    assert lane.host.decided()["decision"] == "phase"
    with subprocess.Popen(lane.host.command("run_cycle"), env=lane.host.environ, stderr=subprocess.DEVNULL) as runner:
        until(lambda: lane.host.rows("SELECT 1 FROM cycles WHERE job = 'phase' AND state = 'running'"), "PHASE runs")
        cycle = lane.queue("true")
        assert lane.run(cycle).returncode == 0
        assert lane.row(cycle) == ("succeeded", True)
        assert runner.poll() is None
        assert "cycle_active" in lane.host.reasons()
        runner.send_signal(signal.SIGTERM)
    assert lane.host.rows("SELECT state FROM cycles WHERE job = 'phase'") == [("cancelled",)]


def test_a_queued_turn_is_nothing_for_ticks_and_runners(lane: Lane) -> None:
    cycle = lane.queue("true")
    assert lane.host.decided()["decision"] == "noop"
    assert "cycle" not in os.listdir(lane.host.state / "kick")
    assert lane.host.run("run_cycle").returncode == 0
    assert lane.row(cycle) == ("queued", False)
    told = lane.host.run("klorosctl", "cancel", str(cycle), "--json")
    assert json.loads(told.stdout)["outcome"] == "cancelled"
    assert lane.row(cycle) == ("cancelled", True)


@pytest.mark.parametrize("who", ["tick", "supervisor", "runner"])
def test_a_turn_whose_runner_was_killed_is_lost_for_whoever_looks(lane: Lane, who: str) -> None:
    cycle = lane.queue_deaf()
    with lane.running(cycle) as runner:
        assert lane.turns.end_lost() == []
        lane.host.decided()
        assert lane.look().runs, "nobody takes it from a runner that lives"
        runner.kill()
        runner.wait()
        until(lane.tree_is_gone, "the keeper ends the tree")
    until(lambda: not lane.look().runs, "its lock is free")
    assert lane.look().state is CycleState.RUNNING

    if who == "tick":
        assert lane.host.decided()["decision"] == "noop"
    elif who == "supervisor":
        assert lane.turns.end_lost() == [cycle]
    else:
        assert lane.run(cycle).returncode == 0
    assert lane.turns.end_lost() == []

    assert lane.row(cycle) == ("lost", True)
    assert lane.locks() == []
    manifest = json.loads((lane.host.state / "cycles" / f"cycle_{cycle:05d}" / "manifest.json").read_text())
    assert manifest["state"] == "lost"
    assert "cycle_lost" not in lane.host.run("klorosctl", "status", "--json").stdout, "its trigger is tried again"


def test_a_turn_that_takes_too_long_is_ended_with_all_its_processes(lane: Lane) -> None:
    cycle = lane.queue_deaf(timeout=timedelta(seconds=1))
    assert lane.run(cycle).returncode == 0
    assert lane.look().state is CycleState.TIMED_OUT
    assert lane.tree_is_gone()


def test_a_turn_is_cancelled_when_its_runner_is_told_to_stop(lane: Lane) -> None:
    cycle = lane.queue_deaf()
    with lane.running(cycle) as runner:
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(timeout=30) == 0
    assert lane.row(cycle) == ("cancelled", True)
    assert lane.tree_is_gone()


def test_the_supervisor_cancels_a_turn(lane: Lane) -> None:
    queued = lane.queue("true", name="-2")
    lane.turns.cancel(queued)
    assert lane.row(queued) == ("cancelled", True)
    cycle = lane.queue_deaf()
    with lane.running(cycle) as runner:
        lane.turns.cancel(cycle)
        assert runner.wait(timeout=30) == 0
    assert lane.row(cycle) == ("cancelled", True)
    lane.turns.cancel(cycle)


def test_a_turn_makes_no_tick_bundle_or_intent(lane: Lane) -> None:
    lane.host.set(KLR_CYCLES_BUNDLE="true")
    lane.host.configure('[observer.rules.seen]\nwatch = "output"\npattern = "ran"\nintent = "alert_seen"\n')
    cycle = lane.queue("sh", "-c", "echo ran")
    assert lane.run(cycle).returncode == 0
    assert lane.look().output == ("ran",)
    assert not (lane.host.state / "kick" / "tick").exists()
    lane.host.decided()
    for table in ("bundles", "federations", "sightings", "phase_dates"):
        assert lane.host.rows(f"SELECT * FROM {table}") == [], table


def test_nothing_runs_while_halted(lane: Lane) -> None:
    cycle = lane.queue("true")
    lane.host.run("klorosctl", "halt")
    assert lane.run(cycle).returncode == Exit.HALTED
    lane.host.run("klorosctl", "unhalt")
    lane.host.set(KLR_ORCHESTRATION_MODE="disabled")
    assert lane.run(cycle).returncode == Exit.DISABLED
    assert lane.row(cycle) == ("queued", False)


@pytest.mark.parametrize("given", [["99"], ["x"], ["0"], ["1", "--output-root", "out"], ["1", "--resume"]])
def test_what_is_no_turn_is_refused(lane: Lane, given: list[str]) -> None:
    done = lane.host.run("run_cycle", "--wake", *given)
    assert done.returncode == Exit.USAGE
    assert "--wake" in done.stderr or "--resume" in done.stderr


def test_only_turns_are_run_that_way(lane: Lane) -> None:
    lane.host.set(**lane.host.window(opens_in=timedelta(minutes=-5)), KLR_PHASE_COMMAND="true")
    number = lane.host.decided()["cycle"]
    assert lane.run(number).returncode == Exit.USAGE
    assert lane.row(number) == ("queued", False)


def test_a_store_is_not_set_back_under_a_turn(lane: Lane) -> None:
    assert orphan.turn_locks(str(lane.host.state)) == []
    cycle = lane.queue_deaf()
    with lane.running(cycle):
        (lock,) = orphan.turn_locks(str(lane.host.state))
        assert not lock.is_free()


def test_of_much_output_the_first_and_the_last_lines_are_read(lane: Lane) -> None:
    cycle = lane.queue("seq", "100000")
    lane.run(cycle)
    output = lane.look().output
    assert output[:2] == ("1", "2")
    assert output[-1] == "100000"
    assert len(output) < 100000
    assert all(line == str(int(line)) for line in output), "no line is cut"
    numbers = [int(line) for line in output]
    assert numbers == sorted(set(numbers))


def test_a_turn_that_cannot_start_says_why(lane: Lane) -> None:
    cycle = lane.queue("/no/such/program")
    assert lane.run(cycle).returncode == 0
    seen = lane.look()
    assert seen.state is CycleState.FAILED
    assert seen.result is not None
    assert seen.result.not_started
    assert "/no/such/program" in seen.result.reason
