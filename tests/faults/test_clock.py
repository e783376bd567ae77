"""A wall clock that jumps a day, forward or back, between ticks, in a backoff, in a cycle, over an intent's expiry: nothing
crashes, nothing is doubled, and nothing waits for a day that has been already.

The clock is libfaketime's (Debian package faketime): every process of the program reads it from a file that the test, or
the cycle's own command, rewrites. The monotonic clock goes on as the kernel's does.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.host import script
from tests.acceptance.moved_clock import library
from tests.faults.kill import Warm
from tests.faults.world import World

jumps = pytest.mark.parametrize("jump", ["+1d", "-1d"])


class Moved:
    """A host with a clock of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.home / "clock"
        self.set("+0")
        environ = {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        world.environ.update(environ)
        self.warm = Warm(**environ)

    def set(self, jump: str) -> None:
        """Set the clock to this much off the true one."""
        self.clock.write_text(f"{jump}\n")

    def run(self, entry: str) -> None:
        """Run an entry, which must succeed."""
        code = self.warm.run(entry, self.world.environ, self.world.output)
        assert code == 0, self.world.output.read_text()

    def tick(self) -> str:
        """Do one tick and tell what it decided."""
        self.run("run_once")
        latest: dict[str, Any] = json.loads((self.world.state / "latest.json").read_text())
        return str(latest["decision"])

    def cycle(self) -> None:
        """Let the runner do what is queued."""
        self.run("run_cycle")


@pytest.fixture
def moved(memory: Path) -> Iterator[Moved]:
    host = Moved(World(memory))
    with host.warm:
        yield host


@jumps
def test_between_ticks(moved: Moved, jump: str) -> None:
    for clock in ("+0", jump, "+0", jump, jump, "+0"):
        moved.set(clock)
        assert moved.tick() == "noop"
        moved.world.assert_always()
    assert _started(moved.world)[1][:10] != _started(moved.world)[0][:10], "the clock did not move"
    moved.world.promote("next")
    assert moved.tick() == "dream_cycle"


@jumps
def test_in_a_backoff(moved: Moved, jump: str) -> None:
    flag = moved.world.home / "broken"
    flag.touch()
    moved.world.set(KLR_DREAM_COMMAND=f"test ! -e {flag}")
    moved.world.promote("tried")
    assert moved.tick() == "dream_cycle"
    moved.cycle()
    assert moved.tick() == "noop", "it backs off for an hour"
    moved.set(jump)
    assert moved.tick() == "dream_cycle"
    moved.cycle()
    assert moved.tick() == "noop", "the second failure has a backoff of its own"
    moved.set("+0")
    flag.unlink()
    assert moved.tick() == "dream_cycle"
    moved.cycle()
    assert moved.tick() == "noop"
    assert moved.world.ack("tried")["accepted"], "a failure of another day, before or after, holds nothing up"
    moved.world.assert_always()
    states = [row["state"] for row in moved.world.table("cycles")]
    assert states == ["failed", "failed", "succeeded"]


@jumps
@pytest.mark.parametrize("job", ["dream", "phase"])
def test_in_a_cycle(moved: Moved, jump: str, job: str) -> None:
    world = moved.world
    lines = (f"echo {jump} > {moved.clock}", "echo '{}' > $KLR_CYCLE_DIR/artifacts/report.json")
    world.set(**{f"KLR_{job.upper()}_COMMAND": f"sh {script(world.home, 'job', lines)}"})
    if job == "phase":
        world.set(**world.window(opens_in=-timedelta(hours=1), lasts=timedelta(hours=4)))
    else:
        world.promote("tried")
    assert moved.tick() == {"dream": "dream_cycle", "phase": "phase"}[job]
    moved.cycle()
    moved.set("+0")
    assert moved.tick() == "noop"
    moved.tick()
    world.assert_always()
    assert [(row["state"], row["settled_at"] is not None) for row in world.table("cycles")] == [("succeeded", True)]
    if job == "phase":
        assert [row["result"] for row in world.table("phase_dates")] == ["succeeded"]
    else:
        assert world.ack("tried")["accepted"]


@pytest.mark.parametrize(("jump", "status"), [("+1d", "stale"), ("-1d", "processed")])
def test_over_an_intents_expiry(moved: Moved, jump: str, status: str) -> None:
    moved.tick()
    name = moved.world.intend("suggest_something").name
    trigger = moved.world.intend("curiosity_bees").name
    moved.set(jump)
    decided = [moved.tick() for _ in range(2)]
    moved.set("+0")
    moved.tick()
    moved.world.assert_always()
    filed = {path.name: path.parent.name for path in moved.world.state.glob("intents/processed/*/*")}
    assert filed == {name: status, trigger: status}
    assert decided == (["noop", "noop"] if status == "stale" else ["dream_cycle", "noop"])
    notes = moved.world.state / "suggestions.jsonl"
    assert (len(notes.read_text().splitlines()) if notes.exists() else 0) == (status == "processed")


@jumps
def test_an_intent_that_waits_is_not_forgotten(moved: Moved, jump: str) -> None:
    """Seen, held up by a cycle, and then the clock jumps: it starts its cycle, or is archived as stale, once."""
    moved.world.set(KLR_DREAM_COMMAND="true")
    moved.world.promote("first")
    name = moved.world.intend("curiosity_bees").name
    assert moved.tick() == "dream_cycle"
    moved.set(jump)
    assert moved.tick() == "noop"
    moved.cycle()
    assert moved.tick() == ("noop" if jump == "+1d" else "dream_cycle")
    moved.set("+0")
    moved.cycle()
    moved.tick()
    moved.world.assert_always()
    assert [path.name for path in moved.world.state.glob("intents/processed/*/*")] == [name]
    assert not list((moved.world.state / "intents").glob("*.json"))


@jumps
@pytest.mark.parametrize("missed", ["skip", "run_once"])
def test_each_local_date_has_one_phase(moved: Moved, jump: str, missed: str) -> None:
    world = moved.world
    world.set(KLR_PHASE_COMMAND="sh -c 'echo {} > $KLR_CYCLE_DIR/artifacts/report.json'", KLR_PHASE_MISSED=missed)
    world.set(**world.window(opens_in=-timedelta(hours=1), lasts=timedelta(hours=4)))
    for clock in ("+0", "+0", jump, jump, "+0", jump, "+1d", "+0", "+2d", "+0"):
        moved.set(clock)
        moved.tick()
        moved.cycle()
        moved.tick()
        world.assert_always()
    succeeded = Counter(row["phase_date"] for row in world.table("cycles") if row["state"] == "succeeded")
    assert set(succeeded.values()) == {1}
    recorded = {row["local_date"]: row["result"] for row in world.table("phase_dates")}
    assert {day for day, result in recorded.items() if result == "succeeded"} == set(succeeded)


def _started(world: World) -> list[str]:
    with closing(sqlite3.connect(world.state / "kloros.db")) as store:
        return [row[0] for row in store.execute("SELECT started_at FROM ticks ORDER BY tick")]
