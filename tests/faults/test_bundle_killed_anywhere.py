"""Making a finished cycle's bundle, killed at every system call that changes the world: what has its checksum is whole at
any moment, and the next runner comes to one bundle.

How it is done is said in `test_killed_anywhere`.
"""

from __future__ import annotations

from pathlib import Path

from orchestration.cycles import bundle, unbundling
from tests.acceptance.host import script
from tests.faults.kill import Point, Warm, changing
from tests.faults.world import World


def whole(world: World) -> list[str]:
    """Verify what counts as a bundle, and return the names of the folders in them."""
    counted = [str(path).removesuffix(bundle.CHECKSUM) for path in (world.state / "out").glob(f"*{bundle.CHECKSUM}")]
    return [unbundling.verify(path).folder for path in counted]


def test_a_bundle_killed_at_any_changing_call_is_made_once(warm: Warm, memory: Path) -> None:
    world = World(memory, backoff="0s")
    world.set(KLR_DREAM_COMMAND=f"sh {script(world.home, 'dream', ['echo done > artifacts/done'])}")
    world.intend("trigger_dream")
    world.decided()
    world.run_queued()
    world.set(KLR_CYCLES_BUNDLE="true")
    with world.store() as db:
        db.run("bundles.ask", cycle=1, due_at="2026-01-01T00:00:00.000000Z")
    world.keep()
    points = changing(warm.traced("run_cycle", world.environ, world.output, world.home / "trace"))
    assert whole(world) == ["cycle_00001"]
    assert len(points) > 10
    killed = [_kill_and_follow(world, warm, point) for point in points]
    assert sum(killed) > 0.8 * len(killed)


def _kill_and_follow(world: World, warm: Warm, point: Point) -> bool:
    world.put_back()
    try:
        killed = warm.killed("run_cycle", world.environ, world.output, point)
        whole(world)
        assert warm.run("run_cycle", world.environ, world.output) == 0
        assert whole(world) == ["cycle_00001"]
        assert len(list((world.state / "out").iterdir())) == 2
        assert world.counter("kloros_bundles_total", 'result="made"') == 1
        assert world.rows("SELECT failures, done_at IS NOT NULL FROM bundles") == [(0, 1)]
        return killed
    except AssertionError as fault:
        fault.add_note(f"killed before {point.name} number {point.number}: {point.text}")
        raise
