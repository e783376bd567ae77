"""What changes something: tick, cancel, halt, maintenance, promotions, intents; and that it is known who did it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.host import PYTHON, Host, script
from tests.acceptance.older import lived_in
from tests.waiting import until

LONG = 60  # seconds until a test gives up waiting for a process to end


def acted(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the log line about the operator."""
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    found: dict[str, Any] = next(line for line in lines if line["event"] == "operator.acted")
    return found


def queued(host: Host, stem: str = "candidate") -> None:
    """Have a cycle queued that no runner takes: the kick lies there, and no path unit watches it."""
    host.stepwise()
    host.promote(stem)
    assert host.decided()["cycle"] == 1


# --- beside ticks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["prune", "baseline set learning_rate=0.05 --reason x", "promotions reject p --reason x", "migrate-legacy"]
)
def test_a_person_waits_for_the_tick_at_work(host: Host, tmp_path: Path, command: str) -> None:
    """It comes each minute and is over at once: nobody is told to type a command again because of it."""
    host.decided()
    host.promote("p")
    words = command.split()
    if command == "migrate-legacy":
        words = [*lived_in(tmp_path / "old", "2026-01-01").arguments, "--yes"]
    with (host.state / "locks" / "orchestrator.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command_line = host.command("klorosctl", *words)
        with subprocess.Popen(command_line, env=host.environ, stdout=subprocess.DEVNULL) as waiting:
            seen = f"-> FLOCK  ADVISORY  WRITE {waiting.pid} "
            until(lambda: waiting.poll() is not None or seen in Path("/proc/locks").read_text(), what="it waits")
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert waiting.wait(LONG) == 0


# --- tick --------------------------------------------------------------------------------------------------------


def test_a_tick_is_that_of_run_once(host: Host) -> None:
    record = host.answer("tick")
    assert record["decision"] == "noop"
    assert [reason["reason"] for reason in record["reasons"]] == host.reasons()


def test_a_tick_waits_for_its_cycle_and_takes_its_code(host: Host) -> None:
    host.set(KLR_DREAM_COMMAND="false")
    host.promote("candidate")
    host.ctl("tick", "--wait", code=12)


@pytest.mark.parametrize(
    ("variables", "code"),
    [({"KLR_ORCHESTRATION_MODE": "disabled"}, 2), ({"KLR_PHASE_TIME_ZONE": "Mars/Olympus"}, 78)],
    ids=["disabled", "invalid"],
)
def test_a_tick_is_turned_away_with_the_code_of_run_once(host: Host, variables: dict[str, str], code: int) -> None:
    host.set(**variables)
    host.ctl("tick", code=code)


# --- halt, maintenance ---------------------------------------------------------------------------------------------


def test_halt_stops_ticks_until_unhalt(host: Host) -> None:
    done = host.ctl("halt", "--reason", "disk is failing")
    assert "klorosctl unhalt" in done.stdout
    assert "disk is failing" in (host.state / "killswitch").read_text()
    assert host.tick().returncode == 20
    assert "already" in host.ctl("halt").stdout
    assert "disk is failing" in (host.state / "killswitch").read_text()
    assert "disk is failing" in host.ctl("unhalt").stdout
    assert host.tick().returncode == 0
    assert "was not halted" in host.ctl("unhalt").stdout


def test_halt_tells_of_the_cycle_that_goes_on(host: Host) -> None:
    queued(host)
    assert host.answer("halt")["active_cycle"] == 1
    assert "klorosctl cancel 1" in host.ctl("halt").stdout


def test_maintenance_lets_ticks_start_nothing(host: Host) -> None:
    host.promote("candidate")
    host.ctl("maintenance", "on")
    assert host.reasons() == ["maintenance_mode"]
    assert host.answer("maintenance", "on")["changed"] is False
    host.ctl("maintenance", "off")
    assert host.decided()["decision"] == "dream_cycle"
    host.ctl("maintenance", "maybe", code=64)


def test_it_is_logged_who_did_it(host: Host) -> None:
    host.environ["SUDO_USER"] = "ada"
    line = acted(host.ctl("halt", "--reason", "fire"))
    assert line["operator"].startswith("ada (sudo, as ")
    assert line["command"] == "halt"
    assert "fire" in line["message"]


# --- cancel --------------------------------------------------------------------------------------------------------


def test_a_queued_cycle_is_cancelled_at_once(host: Host) -> None:
    queued(host)
    done = host.ctl("cancel", "1")
    assert acted(done)["cycle"] == 1
    assert host.rows("SELECT state FROM cycles") == [("cancelled",)]
    assert host.counter("kloros_cycles_total", 'job="dream",result="cancelled"') == 1
    assert "has ended: cancelled" in host.ctl("cancel", "1", code=1).stderr
    assert "backing_off" in host.reasons()
    assert host.rows("SELECT settled_at IS NOT NULL FROM cycles") == [(1,)]


@contextmanager
def following(host: Host, cycle: str) -> Iterator[subprocess.Popen[str]]:
    """Follow a cycle's output, which ends when the cycle has ended."""
    command = [PYTHON, "-m", "orchestration.klorosctl", "logs", "-f", cycle]
    process = subprocess.Popen(command, env=host.environ, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_running_cycle_is_asked_to_end_and_its_log_followed_to_that_end(host: Host) -> None:
    program = script(host.home, "trial", ["echo here we go", "exec sleep 600"])
    host.set(KLR_DREAM_COMMAND=program)
    host.promote("candidate")
    assert host.decided()["cycle"] == 1
    with following(host, "1") as logs:
        assert logs.stdout is not None
        assert logs.stdout.readline() == "here we go\n"
        assert host.answer("status")["active"][0]["state"] == "running"
        assert host.answer("cancel", "1")["outcome"] == "asked"
        rest, _ = logs.communicate(timeout=LONG)
    assert logs.returncode == 0
    assert "here we go" not in rest
    assert host.answer("show", "1")["state"] == "cancelled"
    host.ctl("cancel", "1", code=1)


def test_a_log_is_followed_while_it_is_written(host: Host) -> None:
    pipe = host.home / "pipe"
    os.mkfifo(pipe)
    host.set(KLR_DREAM_COMMAND=script(host.home, "trial", ["echo one", f"cat {pipe}", "printf three"]))
    host.promote("candidate")
    host.decided()
    with following(host, "1") as logs:
        assert logs.stdout is not None
        assert logs.stdout.readline() == "one\n"
        pipe.write_text("two\n")
        rest, _ = logs.communicate(timeout=LONG)
    assert (logs.returncode, rest) == (0, "two\nthree")
    assert host.ctl("logs", "1").stdout == "one\ntwo\nthree"
    lines = [json.loads(line)["line"] for line in host.ctl("logs", "1", "--json").stdout.splitlines()]
    assert lines == ["one", "two", "three"]


def test_a_log_that_is_not_there_yet_says_why(host: Host) -> None:
    queued(host)
    assert "has not started yet" in host.ctl("logs", "1", code=1).stderr


# --- promotions ----------------------------------------------------------------------------------------------------


@pytest.fixture
def parked(host: Host) -> Host:
    """A host where one failed cycle has parked the promotion `stubborn`."""
    host.set(KLR_DREAM_COMMAND="false", KLR_DREAM_PARK_AFTER="1", KLR_DREAM_BACKOFF="0")
    host.stepwise()
    host.promote("stubborn")
    host.decided()
    host.run_queued()
    return host


def test_a_parked_promotion_goes_again_when_a_person_says_so(parked: Host) -> None:
    assert "parked" in parked.reasons()
    assert "retry|reject" in parked.ctl("promotions", "list").stdout
    done = parked.ctl("promotions", "retry", "stubborn")
    assert acted(done)["promotion"] == "stubborn"
    assert "is not parked" in parked.ctl("promotions", "retry", "stubborn", code=1).stderr
    assert parked.decided()["decision"] == "dream_cycle"


def test_a_person_rejects_a_promotion_once(parked: Host) -> None:
    found = parked.answer("promotions", "reject", "stubborn", "--reason", "wrong idea")
    assert found["state"] == "rejected"
    ack = parked.ack("stubborn")
    assert (ack["accepted"], ack["rejection_reason"], ack["schema"]) == (False, "wrong idea", "v1")
    assert parked.counter("kloros_promotions_total", 'verdict="rejected"') == 1
    assert "no_unacked_promotions" in parked.reasons()
    before = Path(found["ack"]).read_bytes()
    assert "has its answer already" in parked.ctl("promotions", "reject", "stubborn", "--reason", "x", code=1).stderr
    assert Path(found["ack"]).read_bytes() == before
    assert parked.counter("kloros_promotions_total", 'verdict="rejected"') == 1


def test_a_promotion_that_no_tick_has_seen_can_be_rejected(host: Host) -> None:
    host.promote("fresh", id="its-own-id")
    host.ctl("promotions", "reject", "fresh", "--reason", "no")
    assert host.ack("fresh")["promotion_id"] == "its-own-id"


def test_what_a_cycle_is_trying_is_not_answered_beside_it(host: Host) -> None:
    queued(host)
    message = host.ctl("promotions", "reject", "candidate", "--reason", "no", code=1).stderr
    assert "cycle 1 is trying" in message
    assert not (host.state / "promotions_ack").exists()


def test_a_rejection_needs_a_reason(parked: Host) -> None:
    assert "--reason" in parked.ctl("promotions", "reject", "stubborn", code=64).stderr
    assert "say why" in parked.ctl("promotions", "reject", "stubborn", "--reason", " ", code=64).stderr
    assert not (parked.state / "promotions_ack").exists()


def test_promotions_are_listed_with_where_they_stand(parked: Host) -> None:
    parked.promote("fine", fitness=0.7)
    parked.promote("wrong", changes={"learning_rate": 7})
    found = {one["stem"]: one for one in parked.answer("promotions", "list")["waiting"]}
    assert {stem: one["state"] for stem, one in found.items()} == {
        "fine": "unacked",
        "stubborn": "parked",
        "wrong": "refused",
    }
    assert found["fine"]["fitness"] == 0.7
    assert "learning_rate" in found["wrong"]["remark"]
    assert parked.answer("promotions", "show", "stubborn")["remembered"]["failures"] == 1


# --- intents -------------------------------------------------------------------------------------------------------


def test_an_intent_is_left_and_served(host: Host) -> None:
    host.stepwise()
    found = host.answer("intents", "add", "curiosity_gaps", "--priority", "7", "--reason", "look", "--topic", "latency")
    content = json.loads(Path(found["path"]).read_text())
    assert (content["priority"], content["reason"], content["data"]) == (7, "look", {"topic": "latency"})
    assert content["sha256"]
    assert [one["name"] for one in host.answer("intents", "list")["pending"]] == [found["intent"]]
    assert host.decided()["decision"] == "dream_cycle"
    shown = host.answer("intents", "show", found["intent"])
    assert shown["records"][0]["cycle"] == 1
    assert "processed" in shown["files"][0]["path"]
    assert host.answer("show", "1")["origin"]["topic"] == "latency"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x y", "--priority", "1", "--reason", "r"], "intent_type"),
        (["x", "--priority", "11", "--reason", "r"], "0<=x<=10"),
        (["x", "--priority", "1"], "--reason"),
        (["x", "--priority", "1", "--reason", "r", "--data", "{"], "not JSON"),
        (["x", "--priority", "1", "--reason", "r", "--data", "[]"], "not an object"),
        (["x", "--priority", "1", "--reason", "r", "--data", '{"n": NaN}'], "data"),
    ],
    ids=["type", "priority", "reason", "json", "object", "nan"],
)
def test_what_is_no_intent_is_not_left(host: Host, arguments: list[str], message: str) -> None:
    assert message in host.ctl("intents", "add", *arguments, code=64).stderr
    assert list(host.state.rglob("*.json")) == []


def test_an_intent_without_a_rule_says_so(host: Host) -> None:
    assert "No rule" in host.ctl("intents", "add", "dance", "--priority", "1", "--reason", "r").stdout


def test_intents_are_listed_next_first(host: Host) -> None:
    host.intend("curiosity_low", priority=2)
    host.intend("curiosity_high", priority=9)
    host.intend("suggest_tidy")
    found = host.answer("intents", "list")
    assert [one["intent_type"] for one in found["pending"]] == ["curiosity_high", "curiosity_low"]
    assert [one["status"] for one in found["next_tick"]] == ["processed"]
    host.decided()
    assert {one["status"] for one in host.answer("intents", "list")["decided"]} == {"processed"}
