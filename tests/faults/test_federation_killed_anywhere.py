"""Copying a bundle into a folder, killed at every system call that changes the world: what is listed is there and whole at
any moment, and the next turn comes to one copy and one entry.

How it is done is said in `test_killed_anywhere`; random moments, and S3, are in tests/contract/test_federation.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tests.acceptance.host import script
from tests.faults.kill import Point, Warm, changing
from tests.faults.world import World


def listed(copies: Path) -> list[dict[str, Any]]:
    """Read the index as anybody may at any moment, and check what it promises."""
    if not (copies / "index.json").exists():
        return []
    entries: dict[str, dict[str, Any]] = json.loads((copies / "index.json").read_text())["entries"]
    for name, entry in entries.items():
        assert json.loads((copies / name).read_text()) == entry
        assert hashlib.sha256((copies / entry["bundle"]).read_bytes()).hexdigest() == entry["sha256"]
    return list(entries.values())


def test_a_copy_killed_at_any_changing_call_is_made_once(warm: Warm, memory: Path) -> None:
    world, copies = World(memory, backoff="0s"), memory / "copies"
    world.set(
        KLR_FEDERATION_TARGET=f"file://{copies}",
        KLR_DREAM_COMMAND=f"sh {script(world.home, 'dream', ['echo done > artifacts/done'])}",
    )
    world.intend("trigger_dream")
    world.decided()
    world.run_queued()
    world.keep()
    points = changing(warm.traced("run_cycle", world.environ, world.output, world.home / "trace"))
    assert len(listed(copies)) == 1
    assert len(points) > 30
    killed = [_kill_and_follow(world, warm, copies, point) for point in points]
    assert sum(killed) > 0.9 * len(killed)


def _kill_and_follow(world: World, warm: Warm, copies: Path, point: Point) -> bool:
    world.put_back()
    shutil.rmtree(copies, ignore_errors=True)
    try:
        killed = warm.killed("run_cycle", world.environ, world.output, point)
        listed(copies)
        assert warm.run("run_cycle", world.environ, world.output) == 0
        assert [entry["cycle"] for entry in listed(copies)] == [1]
        files = sorted(path.relative_to(copies).parts[0] for path in copies.rglob("*") if path.is_file())
        assert files == [".index.json.lock", "bundles", "entries", "index.json"]
        assert world.counter("kloros_federation_total", 'result="sent"') == 1
        return killed
    except AssertionError as fault:
        fault.add_note(f"killed before {point.name} number {point.number}: {point.text}")
        raise
