"""Holding, approving, rejecting, expiring and rolling back, killed at every system call that changes the world.

After each kill the ticks go on, and the person gives the command again, unless it was done: then it comes to the very end
that an unkilled command comes to. How a process is killed, and why before each changing call: test_killed_anywhere.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestration import configuration
from orchestration.baseline import copies, escrow_files, escrow_ledger, history
from orchestration.baseline.escrow import Entry
from orchestration.baseline.escrow import Kind as EntryKind
from orchestration.baseline.version import Kind, Provenance
from orchestration.cycles import artifacts, ledger
from orchestration.cycles.cycle import CycleEvent, Result
from orchestration.host import clock
from tests.faults.kill import Point, Warm, changing
from tests.faults.world import World

SHARES = 2
FOLLOWING = 2  # ticks after the kill
ENTRY, OTHER = "0123456789ab", "ba9876543210"


class Act(NamedTuple):
    """What is killed."""

    prepare: Callable[[World], None]
    entry: str  # with its arguments
    done: Callable[[World], bool]  # so that nobody does it twice who would see that it is done


def settled(world: World) -> None:
    """A D-REAM cycle has ended well; of what it accepted one is held, one is not; an older entry has expired."""
    _versions(world)
    world.configure('[escrow]\nrequire = [{ parameter = "held" }]\n')
    for stem in ("held", "free", "worse"):
        world.promote(stem, changes={stem: 1})
    assert world.decided()["decision"] == "dream_cycle"
    with world.store() as db, db.transaction():
        cycle = ledger.claim_next(db, runner="{}", now=clock.now())
    assert cycle is not None
    folder = artifacts.make_folder(str(world.state / "cycles"), cycle.cycle)
    artifacts.hand_over(cycle, folder, configuration.load(world.environ), now=clock.now())
    (world.state / "kick" / "cycle").unlink(missing_ok=True)
    verdicts = [{"promotion": stem, "accepted": stem != "worse"} for stem in ("held", "free", "worse")]
    Path(artifacts.verdicts_path(folder)).write_text(json.dumps({"schema": "v1", "verdicts": verdicts}))
    result = Result(reason="exit code 0", report_sha=artifacts.check_verdicts(folder))
    with world.store() as db, db.transaction():
        ledger.finish(db, cycle, CycleEvent.SUCCEED, result, now=clock.now())
        escrow_ledger.hold(db, _entry(OTHER, lasts=-timedelta(hours=1)))


def waiting(world: World) -> None:
    """A promotion waits, and so does a rollback; both are in their files."""
    _versions(world)
    with world.store() as db:
        with db.transaction():
            escrow_ledger.hold(db, _entry(ENTRY))
            now = history.newest(db)
            assert now is not None
            rollback = Entry(
                entry=OTHER,
                kind=EntryKind.ROLLBACK,
                target=1,
                against=2,
                rule="worse",
                changes={"a": 1},
                before={"a": 2},
                evidence={},
                created_at=clock.now(),
            )
            escrow_ledger.hold(db, rollback)
        escrow_files.bring_up(db, str(world.state / "escrow"))


def edited(world: World) -> None:
    """Files of baseline and escrow were edited, and one is of no version."""
    waiting(world)
    versions = world.state / "baseline" / "versions"
    for path, word in (
        (versions / "baseline_v0001.yaml", "start"),
        (world.state / "escrow" / f"escrow-{ENTRY}.json", "test"),
    ):
        path.write_text(path.read_text().replace(word, "other"))
    (world.state / "baseline" / "baseline.json").unlink()
    (versions / "baseline_v0007.yaml").write_text("a: 7\n")


ACTS = {
    "settle": Act(settled, "run_once", lambda _: True),
    "approve": Act(waiting, f"klorosctl escrow approve {ENTRY} --reason yes", lambda _: False),
    "approve rollback": Act(waiting, f"klorosctl escrow approve {OTHER}", lambda _: False),
    "repair": Act(edited, "klorosctl baseline verify --repair", lambda _: False),
    "reject": Act(waiting, f"klorosctl escrow reject {ENTRY} --reason no", lambda _: False),
    "rollback": Act(
        waiting, "klorosctl baseline rollback 1 --reason worse", lambda world: len(world.table("baseline_versions")) > 2
    ),
}


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("name", ACTS)
def test_killed_at_every_changing_call_it_comes_to_the_same_end(name: str, share: int, warm: Warm, memory: Path) -> None:
    world, act = World(memory), ACTS[name]
    act.prepare(world)
    world.keep()
    points = changing(warm.traced(act.entry, world.environ, world.output, world.home / "trace"))
    story = _followed(world, warm, act)
    assert len(points) > 20
    killed = [_kill_and_follow(world, warm, act, point, story) for point in points[share::SHARES]]
    assert sum(killed) > 0.9 * len(killed)


def _kill_and_follow(world: World, warm: Warm, act: Act, point: Point, story: dict[str, object]) -> bool:
    world.put_back()
    try:
        killed = warm.killed(act.entry, world.environ, world.output, point)
        world.assert_whole()
        _assert_nothing_lost(world)
        assert _followed(world, warm, act) == story
        return killed
    except AssertionError as fault:
        fault.add_note(f"killed before {point.name} number {point.number}: {point.text}")
        raise


def _followed(world: World, warm: Warm, act: Act) -> dict[str, object]:
    """Tick on, give the command again unless it was done, tick again; tell what it has come to."""
    _tick(world, warm)
    if act.entry != "run_once" and not act.done(world):
        assert warm.run(act.entry, world.environ, world.output) == 0, world.output.read_text()
        world.assert_whole()
    for _ in range(FOLLOWING - 1):
        _tick(world, warm)
    world.assert_always()
    _assert_nothing_lost(world)
    return world.story()


def _tick(world: World, warm: Warm) -> None:
    assert warm.run("run_once", world.environ, world.output) == 0, world.output.read_text()
    world.assert_whole()


def _assert_nothing_lost(world: World) -> None:
    """What was accepted is in exactly one version, or waits, or was turned down: never in two places, never in none."""
    accepted = [row["stem"] for row in world.table("promotions") if row["state"] == "accepted"]
    taken = [stem for row in world.table("baseline_versions") for stem in json.loads(row["promotion_ids"])]
    kept_back = [row["stem"] for row in world.table("escrow") if row["stem"] and row["status"] != "approved"]
    for stem in accepted:
        assert (taken + kept_back).count(stem) == 1, (stem, taken, kept_back)
    approved = {row["version"] for row in world.table("escrow") if row["status"] == "approved"}
    assert approved <= {row["version"] for row in world.table("baseline_versions")}


def _versions(world: World) -> None:
    """Two versions of the baseline, in their files."""
    world.decided()
    with world.store() as db:
        for value in (1, 2):
            with db.transaction():
                made = Provenance(at=clock.now(), actor="ada", kind=Kind.SET, reason="start")
                history.put(db, {"a": value}, made, state_dir=str(world.state))
        copies.bring_up(db, str(world.state / "baseline"))


def _entry(entry: str, *, lasts: timedelta | None = None) -> Entry:
    return Entry(
        entry=entry,
        kind=EntryKind.PROMOTION,
        stem=f"stem-{entry}",
        promotion_id=f"id:{entry}",
        against=2,
        rule="test",
        changes={"b": 3},
        before={"b": None},
        fitness=0.5,
        evidence={},
        emitted_by="agent-x",
        created_at=clock.now(),
        expires_at=None if lasts is None else clock.now() + lasts,
    )
