"""The loop killed at random instants over a command that also crashes, hangs, floods its output and forks.

200 kills by default (`KLR_LOOP_KILLS`), spread over loops on several state folders, so that xdist runs them side by side.

Two of three kills count their instant from when the command runs, however long the machine takes to come there; the others
from the start of the loop, into its own start and recovery. So a busy machine does not kill loops only before they did
anything. What a command does follows from how many ran before it, so that every kind is among the first six.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.acceptance.looping import PAUSE, Looping, mentions
from tests.waiting import until

LOOPS = 8
KILLS = -(-int(os.environ.get("KLR_LOOP_KILLS", "200")) // LOOPS)  # of each loop
KINDS = {"end", "crash", "hang", "flood", "fork"}
FAKE = """
import os, random, sys, time
n = int(os.environ["RUN_CYCLE_ITERATION"])
chance = random.Random(n)
open(f"state/planner_digest_archives/a{n % 7}", "w").write(str(n))
before = len(open("did").readlines()) if os.path.exists("did") else 0
kinds = ["end", "end", "crash", "hang", "flood", "fork"]
random.Random(int(sys.argv[2]) + before // len(kinds)).shuffle(kinds)
what = kinds[before % len(kinds)]
with open("did", "a") as did:
    did.write(f"{what}\\n")
with open("ran", "a") as ran:
    ran.write(os.environ["RUN_CYCLE_GOAL"] + "\\n")
if what == "crash":
    os.abort()
if what == "hang":
    time.sleep(600)  # until its deadline ends it
if what == "flood":
    for _ in range(200):
        sys.stdout.write("x" * 10000)
if what == "fork":
    for _ in range(3):
        if not os.fork():
            os.setsid()
            time.sleep(600)  # outlives its parent, and is to be found and ended
sys.exit(chance.choice([0, 0, 3]))
"""


@pytest.mark.parametrize("seed", range(LOOPS))
def test_killed_anywhere_no_row_is_lost_or_doubled_and_no_process_survives(tmp_path: Path, seed: int) -> None:
    looping = Looping(Host(tmp_path))
    (looping.tree / "fake.py").write_text(FAKE)
    chance = random.Random(seed)
    by_intents = bool(seed % 2)
    flags = ["--command", f"python3 -S fake.py {looping.tree} {seed}", "--timeout", "0.2", "--goal", "own"]
    flags += ["--sleep", "0", "--max-backoff", "0", "--max-failures", "0"] + ["--goal-from", "intents"] * by_intents
    deadline = time.monotonic() + 10 * KILLS
    for turn in range(KILLS):
        assert time.monotonic() < deadline, "too slow"
        if by_intents:
            looping.host.intend("loop_goal", goal=f"goal {turn}")
        commands = len(ran(looping))
        with looping.running(*flags, "--continuous") as loop:
            if turn % 3:
                until(lambda: len(ran(looping)) > commands or loop.poll() is not None, "a command runs")  # noqa: B023
            PAUSE.wait(chance.uniform(0.05, 0.8))
            assert loop.poll() is None, f"the loop ended by itself: {looping.errors.read_text()}"
            loop.kill()
            loop.wait()
        assert looping.latest().get("schema", "v1") == "v1"
        looping.rows()
    until(lambda: not mentions(f"fake.py\0{looping.tree}"), "no process survives")
    last = looping.loop(*flags, "--iterations", str(1 + len(waiting(looping))), timeout=10 * KILLS)
    assert last.returncode in (Exit.DONE, Exit.FAILED), last.stderr
    assert not waiting(looping)
    assert not mentions(f"fake.py\0{looping.tree}"), "nor of the last one"
    check_records(looping)
    assert set((looping.tree / "did").read_text().split()) == KINDS or KILLS < 25
    if by_intents:
        check_intents(looping)


def ran(looping: Looping) -> list[str]:
    """Return the goals of the commands that ran."""
    path = looping.tree / "ran"
    return path.read_text().splitlines() if path.exists() else []


def waiting(looping: Looping) -> list[Path]:
    return list((looping.host.state / "intents").glob("*.json"))


def check_records(looping: Looping) -> None:
    numbers = [row["iteration"] for row in looping.rows()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert looping.host.rows("SELECT count(*) FROM iterations WHERE status IS NULL OR written = 0") == [(0,)]
    assert looping.host.rows("SELECT max(iteration) FROM iterations") == [(numbers[-1],)]
    totals = looping.latest()["totals"]
    assert sum(totals.values()) == len(numbers)
    assert totals["lost"] > 0
    for status, number in totals.items():
        assert looping.host.counter("kloros_loop_iterations_total", f'status="{status}"') == number, status
    assert not [name for name in os.listdir(looping.logs) if name.startswith(".")]
    assert len({row["log_path"] for row in looping.rows()}) == len(numbers)


def check_intents(looping: Looping) -> None:
    """Each goal was answered once, with a cycle of its own, and no command ran for it twice."""
    answers = looping.host.rows("SELECT name, status, cycle FROM intents")
    assert {status for _, status, _ in answers} == {"processed"}
    assert len(answers) == len({name for name, _, _ in answers}) == len({cycle for _, _, cycle in answers})
    origins = [json.loads(str(text)) for (text,) in looping.host.rows("SELECT origin FROM cycles")]
    started = [origin["intent"] for origin in origins if origin.get("intent")]
    assert sorted(started) == sorted(name for name, _, _ in answers)
    goals = [goal for goal in ran(looping) if goal != "own"]
    assert len(goals) == len(set(goals))
    assert len(goals) > KILLS // 2
