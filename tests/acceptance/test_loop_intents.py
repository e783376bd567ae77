"""Goals that come from intents: taken once, by the loop and never by a tick, answered with the number of their cycle."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.acceptance.looping import PAUSE, Looping
from tests.waiting import until

ONCE = ("--goal-from", "intents", "--sleep", "0", "--max-backoff", "0", "--archives", "")


@pytest.fixture
def looping(host: Host) -> Looping:
    return Looping(host)


def of_inbox(looping: Looping) -> list[tuple[str, str, str, int | None]]:
    """Return what the store knows of intents, oldest first."""
    rows = looping.host.rows("SELECT intent_type, status, reason, cycle FROM intents ORDER BY decided_at, name")
    return [(str(kind), str(status), str(reason), cycle) for kind, status, reason, cycle in rows]


def filed(looping: Looping, status: str) -> list[str]:
    """Return the names of the files of a final status."""
    folder = looping.host.state / "intents" / "processed" / status
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_an_intent_gives_the_goal_and_gets_the_number_of_its_cycle(looping: Looping) -> None:
    path = looping.host.intend("loop_goal", goal="mend $(it) now")
    command = looping.command('printf "%s|%s" "$1" "$RUN_CYCLE_GOAL" > seen')
    done = looping.loop("--command", f"{command} {{goal}}", *ONCE)
    assert done.returncode == Exit.DONE, done.stderr
    assert (looping.tree / "seen").read_text() == "mend $(it) now|mend $(it) now"
    assert [(row["goal"], row["cycle"], row["status"]) for row in looping.rows()] == [("mend $(it) now", 1, "success")]
    assert of_inbox(looping) == [
        ("loop_goal", "processed", "a goal of the loop: started cycle 1 (no checksum)", 1)
    ]  # fmt: skip
    assert filed(looping, "processed") == [path.name]
    assert not path.exists()
    shown = json.loads(looping.host.run("klorosctl", "show", "1", "--json").stdout)
    assert path.name in json.dumps(shown)
    assert looping.host.counter("kloros_intents_total", 'status="processed"') == 1


def test_the_highest_priority_comes_first_and_each_is_taken_once(looping: Looping) -> None:
    for priority, goal in ((2, "low"), (9, "high"), (5, "middle")):
        looping.host.intend("loop_goal_nightly", priority=priority, goal=goal)
    looping.loop("--command", "true", "--iterations", "5", "--goal", "own", *ONCE)
    assert [row["goal"] for row in looping.rows()] == ["high", "middle", "low", "own", "own"]
    assert len(filed(looping, "processed")) == 3


def test_while_none_waits_the_goals_of_a_file_are_taken(looping: Looping) -> None:
    (looping.tree / "goals").write_text("one\ntwo\n")
    looping.loop("--command", "true", "--iterations", "2", "--goal-file", "goals", *ONCE)
    looping.host.intend("loop_goal", goal="asked")
    looping.loop("--command", "true", "--iterations", "2", "--goal-file", "goals", *ONCE)
    assert [row["goal"] for row in looping.rows()] == ["one", "two", "asked", "two"]


def test_without_other_goals_it_waits_for_an_intent(looping: Looping) -> None:
    with looping.running("--command", "true", "--iterations", "2", *ONCE) as loop:
        looping.waits_for("waiting for an intent")
        assert looping.rows() == []
        looping.host.intend("loop_goal", goal="first")
        until(lambda: len(looping.terminated_rows()) == 1, "the first goal is done")
        looping.waits_for("waiting for an intent")
        looping.host.intend("loop_goal", goal="second")
        assert loop.wait(20) == Exit.DONE
    assert [row["goal"] for row in looping.rows()] == ["first", "second"]


@pytest.mark.parametrize("how", ["signal", "stop file", "kill switch"])
def test_that_wait_can_be_ended(looping: Looping, how: str) -> None:
    with looping.running("--command", "true", "--continuous", "--stop-file", "stop", *ONCE) as loop:
        looping.waits_for("waiting for an intent")
        if how == "signal":
            loop.terminate()
        else:
            (looping.tree / "stop" if how == "stop file" else looping.host.state / "killswitch").touch()
        assert loop.wait(10) == (Exit.HALTED if how == "kill switch" else Exit.DONE)


def test_the_setting_can_stand_in_the_file(looping: Looping) -> None:
    looping.host.configure('[loop]\ngoal_from = "intents"\ncommand = ["true"]\n')
    looping.host.intend("loop_goal", goal="asked")
    assert looping.loop().returncode == Exit.DONE
    assert [row["goal"] for row in looping.rows()] == ["asked"]


def test_goals_of_settings_leave_intents_where_they_are(looping: Looping) -> None:
    path = looping.host.intend("loop_goal", goal="asked")
    looping.loop("--command", "true", "--goal", "own")
    assert [row["goal"] for row in looping.rows()] == ["own"]
    assert path.exists()


# one inbox for both


def test_a_tick_leaves_a_goal_of_the_loop_to_it(looping: Looping) -> None:
    looping.host.stepwise()
    path = looping.host.intend("loop_goal", priority=10, goal="asked")
    assert "no_intents" in looping.host.reasons()
    assert path.exists()
    assert [row[:2] for row in of_inbox(looping)] == [("loop_goal", "pending")]
    looping.loop("--command", "true", *ONCE)
    assert [row["goal"] for row in looping.rows()] == ["asked"]
    assert "no_intents" in looping.host.reasons()
    assert [row[1:] for row in of_inbox(looping)] == [("processed", "a goal of the loop: started cycle 1 (no checksum)", 1)]


def test_what_a_tick_starts_the_loop_leaves_to_it(looping: Looping) -> None:
    looping.host.stepwise()
    path = looping.host.intend("trigger_dream", priority=10, topic="latency")
    noted = looping.host.intend("suggest_thing", priority=1)
    looping.host.intend("loop_goal", goal="asked")
    looping.loop("--command", "true", *ONCE)
    assert [row["goal"] for row in looping.rows()] == ["asked"]
    assert path.exists()
    assert noted.name in filed(looping, "processed"), "what needs nobody is done by whoever looks"
    assert len((looping.host.state / "suggestions.jsonl").read_text().splitlines()) == 1
    assert looping.host.decided()["decision"] == "dream_cycle"
    assert len((looping.host.state / "suggestions.jsonl").read_text().splitlines()) == 1


def test_ticks_and_the_loop_at_once_take_each_intent_once(looping: Looping) -> None:
    looping.host.stepwise()
    for number in range(8):
        looping.host.intend("loop_goal", goal=f"goal {number}")
    with looping.running("--command", "true", "--iterations", "8", *ONCE) as loop:
        while loop.poll() is None:
            assert looping.host.tick("--json").returncode in (Exit.DONE, Exit.LOCK_HELD)
    assert loop.returncode == Exit.DONE
    assert sorted(row["goal"] for row in looping.rows()) == [f"goal {number}" for number in range(8)]
    assert [row[1] for row in of_inbox(looping)] == ["processed"] * 8
    assert looping.host.rows("SELECT count(*) FROM cycles") == [(8,)]


# rules of the inbox


def test_the_same_goal_twice_is_done_once(looping: Looping) -> None:
    for _ in range(2):
        looping.host.intend("loop_goal", goal="asked")
    looping.loop("--command", "true", "--iterations", "2", "--goal", "own", *ONCE)
    assert [row["goal"] for row in looping.rows()] == ["asked", "own"]
    assert sorted(row[1] for row in of_inbox(looping)) == ["deduplicated", "processed"]
    assert len(filed(looping, "deduplicated")) == 1


def test_a_goal_that_waited_too_long_is_stale(looping: Looping) -> None:
    path = looping.host.intend("loop_goal", goal="asked")
    old = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    content = json.loads(path.read_text()) | {"generated_at": old, "emitted_at": old}
    path.write_text(json.dumps(content))
    looping.loop("--command", "true", "--goal", "own", *ONCE)
    assert [row["goal"] for row in looping.rows()] == ["own"]
    assert filed(looping, "stale") == [path.name]


@pytest.mark.parametrize(
    ("goal", "why"), [("", "it names no goal"), (" \n", "it names no goal"), ("x" * 4001, "has 4001 characters")]
)
def test_what_is_no_goal_has_failed(looping: Looping, goal: str, why: str) -> None:
    path = looping.host.intend("loop_goal", goal=goal)
    looping.loop("--command", "true", "--goal", "own", *ONCE)
    assert [row["goal"] for row in looping.rows()] == ["own"]
    assert filed(looping, "failed") == [path.name]
    assert why in of_inbox(looping)[0][2]


def test_a_goal_is_one_line(looping: Looping) -> None:
    looping.host.intend("loop_goal", goal="one\ntwo\0three " + "x" * 3900)
    looping.loop("--command", "true", *ONCE)
    assert looping.rows()[0]["goal"] == "one two three " + "x" * 3900


def test_klorosctl_leaves_a_goal(looping: Looping) -> None:
    done = looping.host.run(
        "klorosctl", "intents", "add", "loop_goal", "--priority", "5", "--reason", "r", "--data", '{"goal": "by hand"}'
    )
    assert done.returncode == Exit.DONE, done.stderr
    assert "goal of its next iteration" in " ".join(done.stdout.split())
    looping.loop("--command", "true", *ONCE)
    assert [row["goal"] for row in looping.rows()] == ["by hand"]


# ends in between


def test_a_goal_whose_prerequisites_fail_waits_on(looping: Looping) -> None:
    path = looping.host.intend("loop_goal", goal="asked")
    check = looping.command("[ -e ready ]", name="check.sh")
    looping.loop("--command", "true", "--prerequisites", check, *ONCE)
    assert path.exists()
    (looping.tree / "ready").touch()
    looping.loop("--command", "true", "--prerequisites", check, *ONCE)
    assert [(row["goal"], row["status"]) for row in looping.rows()] == [("asked", "prereq_failed"), ("asked", "success")]
    assert [row[3] for row in of_inbox(looping)] == [1]


@pytest.mark.parametrize("change", ["taken away", "replaced"])
def test_a_goal_that_is_taken_back_before_its_command_is_not_run(looping: Looping, change: str) -> None:
    path = looping.host.intend("loop_goal", goal="asked")
    again = 'path.write_text(path.read_text().replace("asked", "instead"))' if change == "replaced" else "path.unlink()"
    (looping.tree / "check.py").write_text(
        f"import pathlib\npath = pathlib.Path({str(path)!r})\nif path.exists() and 'asked' in path.read_text(): {again}\n"
    )
    flags = ("--prerequisites", "python3 check.py", "--goal", "own", "--iterations", "2")
    looping.loop("--command", looping.command('echo "$RUN_CYCLE_GOAL" >> ran'), *flags, *ONCE)
    rest = "instead" if change == "replaced" else "own"
    assert [(row["goal"], row["status"], row["cycle"]) for row in looping.rows()] == [
        ("asked", "interrupted", None),
        (rest, "success", 1),
    ]
    assert (looping.tree / "ran").read_text() == f"{rest}\n"


def test_killed_before_its_cycle_is_queued_the_goal_waits_on(looping: Looping) -> None:
    path = looping.host.intend("loop_goal", goal="asked")
    hangs = looping.command("while [ ! -e go ]; do sleep 0.02; done", name="check.sh")
    with looping.running("--command", "true", "--prerequisites", hangs, *ONCE) as loop:
        looping.waits_for("prerequisites")
        PAUSE.wait(0.2)
        loop.kill()
        loop.wait()
    assert path.exists()
    (looping.tree / "go").touch()
    looping.loop("--command", "true", "--prerequisites", hangs, *ONCE)
    assert [(row["goal"], row["status"]) for row in looping.rows()] == [("asked", "lost"), ("asked", "success")]
    assert of_inbox(looping)[0][1:] == ("processed", "a goal of the loop: started cycle 1 (no checksum)", 1)


def test_killed_after_its_cycle_is_queued_the_goal_is_not_taken_again(looping: Looping) -> None:
    path = looping.host.intend("loop_goal", goal="asked")
    content = path.read_text()
    looping.loop("--command", looping.command('echo "$RUN_CYCLE_GOAL" >> ran'), *ONCE)
    with sqlite3.connect(looping.host.state / "kloros.db") as connection:  # killed between the commit and the move
        connection.execute("UPDATE intents SET filed = 0")
    (looping.host.state / "intents" / "processed" / "processed" / path.name).unlink()
    Path(path).write_text(content)
    looping.loop("--command", looping.command('echo "$RUN_CYCLE_GOAL" >> ran'), "--goal", "own", *ONCE)
    assert (looping.tree / "ran").read_text() == "asked\nown\n"
    assert filed(looping, "processed") == [path.name]
