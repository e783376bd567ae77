"""Taking over killed at every system call that changes the world: given again it comes to the same end, and at no moment
is the source changed or half a file to be read.

How it is done is said in `test_killed_anywhere`.
"""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.older import lived_in
from tests.faults.kill import Point, Warm, changing
from tests.faults.world import World

_YESTERDAYS = "2026-01-01"


def test_a_migration_killed_at_any_changing_call_is_finished_by_the_next(warm: Warm, memory: Path) -> None:
    world = World(memory)
    world.decided()
    world.keep()
    older = lived_in(memory / "older", _YESTERDAYS)
    before = older.snapshot()
    entry = f"klorosctl {' '.join(older.arguments)} --yes"
    points = changing(warm.traced(entry, world.environ, world.output, world.home / "trace"))
    wanted = _end(world)
    assert len(wanted["acks"]) == 5
    assert len(points) > 50
    killed = [_kill_and_follow(world, warm, entry, point, wanted) for point in points]
    assert sum(killed) > 0.8 * len(killed)
    assert older.snapshot() == before


def _end(world: World) -> dict[str, list[object]]:
    """Tell what the state has come to; of what differs by the instant only how much there is."""
    return {
        "acks": _content(world, "promotions_ack"),
        "signals": _content(world, "signals"),
        "intents": _content(world, "intents"),
        "dates": list(world.table("phase_dates", without=("recorded_at",))),
        "versions": list(world.table("baseline_versions")),
    }


def _content(world: World, folder: str) -> list[object]:
    return [(path.name, path.read_bytes()) for path in sorted((world.state / folder).glob("[!.]*.json"))]


def _kill_and_follow(world: World, warm: Warm, entry: str, point: Point, wanted: dict[str, list[object]]) -> bool:
    world.put_back()
    try:
        killed = warm.killed(entry, world.environ, world.output, point)
        world.assert_one_baseline()
        assert warm.run(entry, world.environ, world.output) == 0
        assert _end(world) == wanted
        world.assert_baseline()
        assert warm.run("run_once", world.environ, world.output) == 0
        world.assert_no_litter()
        return killed
    except AssertionError as fault:
        fault.add_note(f"killed before {point.name} number {point.number}: {point.text}")
        raise
