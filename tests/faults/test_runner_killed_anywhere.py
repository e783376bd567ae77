"""The runner, killed at every system call that changes the world: its command's tree goes with it, and the next ticks and
the next runner bring the cycle's work to its one end.

How it is done is said in `test_killed_anywhere`. Only the runner is killed; what happens when its keeper dies is in
`test_process_tree`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.host import script
from tests.faults.kill import Point, Warm, changing
from tests.faults.world import World

SHARES = 4
ACKS = {"better": True, "worse": False}


def dream(world: World) -> None:
    """A D-REAM cycle is queued; its command answers, and leaves a process behind."""
    verdicts = [{"promotion": stem, "accepted": accepted, "reason": "so"} for stem, accepted in ACKS.items()]
    (world.home / "verdicts").write_text(json.dumps({"schema": "v1", "verdicts": verdicts}))
    copy = f"cp {world.home}/verdicts $KLR_CYCLE_DIR/artifacts/verdicts.json"
    command = script(world.home, "dream", ("setsid sleep 600 &", copy, "echo done"))
    world.set(KLR_DREAM_COMMAND=f"sh {command}")
    for stem in ACKS:
        world.promote(stem)


def phase(world: World) -> None:
    """A PHASE is queued; its command reports, and leaves a process behind."""
    lines = ("setsid sleep 600 &", "echo '{}' > $KLR_CYCLE_DIR/artifacts/report.json")
    world.set(KLR_PHASE_COMMAND=f"sh {script(world.home, 'phase', lines)}")
    world.set(**world.window(opens_in=-timedelta(hours=1), lasts=timedelta(hours=4)))
    world.configure(
        "[observer.rules.phase_failed]\nenabled = false\n"
    )  # a lost PHASE raises an alert, one done at once none


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("prepare", [dream, phase], ids=lambda prepare: prepare.__name__)
def test_a_runner_killed_at_any_changing_call_leaves_no_process_and_the_work_is_done_once(
    prepare: Callable[[World], None], share: int, warm: Warm, memory: Path
) -> None:
    world = World(memory, backoff="0s")
    prepare(world)
    assert world.decided()["decision"] != "noop"
    world.keep()
    world.put_back()
    points = warm.traced("run_cycle", world.environ, world.output, world.home / "trace")
    follow(world, warm)
    cycles, story = end(world)
    assert cycles == ["succeeded"]
    chosen = changing(points)
    assert len(chosen) > 50
    killed = [_kill_and_follow(world, warm, point, story) for point in chosen[share::SHARES]]
    assert sum(killed) > 0.9 * len(killed)


def _kill_and_follow(world: World, warm: Warm, point: Point, story: dict[str, Any]) -> bool:
    world.put_back()
    try:
        killed = warm.killed("run_cycle", world.environ, world.output, point)
        world.assert_whole()
        follow(world, warm)
        cycles, ended = end(world)
        assert cycles in (["succeeded"], ["lost", "succeeded"])
        assert ended == story
        return killed
    except AssertionError as fault:
        fault.add_note(f"killed before {point.name} number {point.number}: {point.text}")
        raise


def follow(world: World, warm: Warm) -> None:
    """Tick, run what is queued, tick, tick; no process outlives the first tick that finds its runner gone."""
    if (world.state / "locks" / "runner.lock").exists():  # whoever ends the tree of a dead runner holds on to its lock
        subprocess.run(["flock", "-w", "20", world.state / "locks" / "runner.lock", "true"], check=True)
    for entry in ("run_once", "run_cycle", "run_once", "run_once"):
        assert warm.run(entry, world.environ, world.output) == 0, world.output.read_text()
        world.assert_whole()
        assert world.processes() == []


def end(world: World) -> tuple[list[str], dict[str, Any]]:
    """Tell what the state has come to: how the cycles ended, and all that must not depend on how many it took."""
    world.assert_always()
    story: dict[str, Any] = world.story()
    states = [cycle["state"] for cycle in story["cycles"]]
    assert all(cycle["settled_at"] for cycle in story["cycles"]), [c["result"] for c in story["cycles"]]
    assert list(story["manifests"].values()) == states
    counted = {row["labels"].split("result=")[1]: row["value"] for row in story["counters"] if "_cycles_" in row["name"]}
    assert counted == {f'"{state}"': states.count(state) for state in states}
    for changing_with_cycle in (*story["promotions"], *story["acks"].values(), *story["baseline"].values()):
        changing_with_cycle["cycle"] = None
        changing_with_cycle.pop("reason", None)  # it names the cycle
    for day in story["phase_dates"]:
        day["cycle"] = None
    kept = ("promotions", "acks", "baseline", "phase_dates", "locks")
    counters = [row for row in story["counters"] if "_cycles_" not in row["name"]]
    return states, {**{name: story[name] for name in kept}, "counters": counters}
