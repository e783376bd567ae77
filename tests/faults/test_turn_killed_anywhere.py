"""The runner of an agent's turn, killed at every fourth system call that changes the world: no process is left, the turn
runs at most once, and after one tick it stands as what it came to, whole and settled.

How it is done is said in `test_killed_anywhere`.
"""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from orchestration.bridge.wake.port import Turn
from orchestration.bridge.wake.turns import Turns
from orchestration.configuration import load
from tests.acceptance.host import script
from tests.faults.kill import Point, Warm, changing
from tests.faults.world import World

SHARES = 2
EVERY = 4 * SHARES
RUN = "run_cycle --wake 1"


@pytest.mark.parametrize("share", range(SHARES))
def test_the_runner_of_a_turn_killed_at_any_changing_call_leaves_it_lost_or_done(
    share: int, warm: Warm, memory: Path
) -> None:
    world = World(memory)
    world.decided()
    marks = world.home / "marks"
    command = script(world.home, "turn", ("setsid sleep 600 &", f"echo ran >>{marks}", "cat"))
    with world.store() as db:
        turn = Turn(command=("sh", command), prompt="wake up")
        Turns(load(world.environ), world.environ, db).enqueue(turn, token=f"{memory}", timeout=timedelta(minutes=5))
    world.keep()
    world.put_back()
    points = warm.traced(RUN, world.environ, world.output, world.home / "trace")
    assert ended(world, warm, marks) == "succeeded"
    chosen = changing(points)
    assert len(chosen) > 50
    states = {kill(world, warm, marks, point) for point in chosen[4 * share :: EVERY]}
    assert states == {"succeeded", "lost"}


def kill(world: World, warm: Warm, marks: Path, point: Point) -> str:
    world.put_back()
    marks.unlink(missing_ok=True)
    try:
        warm.killed(RUN, world.environ, world.output, point)
        world.assert_whole()
        return ended(world, warm, marks)
    except AssertionError as fault:
        fault.add_note(f"killed before {point.name} number {point.number}: {point.text}")
        raise


def ended(world: World, warm: Warm, marks: Path) -> str:
    """Tick; start the turn if it still waits, as a supervisor would; tell what it came to."""
    lock = world.state / "locks" / "wake" / "1.lock"
    if lock.exists():  # whoever ends the tree of a dead runner holds on to its lock
        subprocess.run(["flock", "-w", "20", lock, "true"], check=True)
    for entry in ("run_once", RUN, "run_once"):
        assert warm.run(entry, world.environ, world.output) == 0, world.output.read_text()
        world.assert_whole()
        assert world.processes() == []
    world.assert_no_litter()
    ((cycle),) = world.table("cycles")
    assert cycle["settled_at"]
    assert not lock.exists()
    assert not marks.exists() or marks.read_text() == "ran\n"
    manifest = json.loads((world.state / "cycles" / "cycle_00001" / "manifest.json").read_text())
    assert manifest["state"] == cycle["state"]
    return str(cycle["state"])
