"""The tick, killed at every system call that changes the world, then ticked again: it comes to the same end.

A process changes the world by system calls alone (SQLite's shared memory apart, which SQLite rebuilds when its last user
has died). So killing it before a call that changes nothing anybody could see, a read or a wait, is the same as killing it
before the next call that does change something, and to kill it before each of those is to kill it at every instruction.
`strace` counts the calls of each name from the moment it attaches, so a run is first recorded and then killed once at each
changing call of the record; the first tick of all and a quiet one, the smallest, at every call whatever it does.

After each kill the next ticks must lead to the very story of a run that was not killed (design rule 4), every file must
be whole even before them, and nothing of the dead run may remain.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from orchestration import configuration
from orchestration.cycles import artifacts, bundle, ledger, sightings
from orchestration.cycles.cycle import Cause, Cycle, CycleEvent, JobName, Origin, Result
from orchestration.cycles.job import Job
from orchestration.host import clock
from orchestration.promotions import ledger as promotions
from tests.faults.kill import Point, Warm, changing
from tests.faults.world import World

SHARES = 4  # each world's sweep is split so that the cores share it
FOLLOWING = 3  # ticks after the kill


def nothing(world: World) -> None:
    """No state folder's content at all: the first tick ever."""


def quiet(world: World) -> None:
    """A tick has been; there is nothing to do."""
    world.decided()


def queue(world: World) -> None:
    """Promotions to start a cycle for, one to refuse, and an intent of every kind."""
    world.decided()
    for stem in ("first", "second"):
        world.promote(stem)
    world.promote("invalid", fitness=-1)
    _intents(world)
    world.intend("trigger_dream", priority=1)


def asked(world: World) -> None:
    """An intent that starts a cycle."""
    world.decided()
    world.intend("curiosity_bees", priority=7)
    world.intend("suggest_honey")
    _age(world)


def succeeded(world: World) -> None:
    """A D-REAM cycle has ended well, with a verdict of every kind."""
    cycle, folder = _run_dream(world, ("better", "worse", "neutral"))
    verdicts = [
        {"promotion": "better", "accepted": True, "reason": "+9 %", "fitness": 0.9},
        {"promotion": "worse", "accepted": False, "reason": "-9 %", "fitness": 0.1},
        {"promotion": "neutral", "accepted": False, "reason": "neutral"},
    ]
    Path(artifacts.verdicts_path(folder)).write_text(json.dumps({"schema": "v1", "verdicts": verdicts}))
    _end(world, cycle, CycleEvent.SUCCEED, verdicts=artifacts.check_verdicts(folder))


def failed(world: World) -> None:
    """A D-REAM cycle has failed, for one of its promotions once too often."""
    world.set(KLR_DREAM_PARK_AFTER="2")
    cycle, _ = _run_dream(world, ("old", "new"))
    with world.store() as db, db.transaction():
        promotions.fail(db, ["old"], cycle=99, reason="before", park_after=2, at=clock.now())
    _end(world, cycle, CycleEvent.FAIL)


def dates(world: World) -> None:
    """Three dates to account for, and the window is open."""
    world.decided()
    world.set(**world.window(opens_in=-timedelta(hours=1), lasts=timedelta(hours=4)))
    before = (datetime.now(UTC) - timedelta(hours=1)).date() - timedelta(days=4)
    with world.store() as db:
        db.run("facts.set", name="phase.accounted_through", value=before.isoformat())


def phased(world: World) -> None:
    """A PHASE has ended well inside its window; by its result the baseline's version is worse, and is rolled back."""
    world.decided()
    for rate, scores in ((0.01, (0.9, 0.9, 0.9)), (0.02, (0.5, 0.5))):
        changed = world.run("klorosctl", "baseline", "set", f"learning_rate={rate}", "--reason", "test")
        assert changed.returncode == 0, changed.stderr
        for score in scores:
            _end_phase(world, score)
            world.decided()
    world.set(**world.window(opens_in=-timedelta(hours=1), lasts=timedelta(hours=4)))
    _end_phase(world, 0.5, day=(datetime.now(UTC) - timedelta(hours=1)).date())


def watched(world: World) -> None:
    """A PHASE has failed, and lines that a rule watches were seen in its output."""
    world.decided()
    job = Job(JobName.PHASE, ("true",), "", timedelta(minutes=1))
    with world.store() as db, db.transaction():
        ledger.enqueue(db, job=job, origin=Origin(Cause.INTENT, "t"), token="aa", now=clock.now())
        cycle = ledger.claim_next(db, runner="{}", now=clock.now())
        assert cycle is not None
        sightings.note(db, cycle.cycle, sightings.Seen({"critical_line": sightings.Sighting(1, ("CRITICAL",))}))
    artifacts.make_folder(str(world.state / "cycles"), cycle.cycle)
    _end(world, cycle, CycleEvent.FAIL)


def reflected(world: World) -> None:
    """A reflection has ended well and left intents: to take, to start something, and to refuse."""
    world.intend("idle_reflection")
    assert world.decided()["decision"] == "reflection"
    with world.store() as db, db.transaction():
        cycle = ledger.claim_next(db, runner="{}", now=clock.now())
    assert cycle is not None
    left = Path(artifacts.intents_path(artifacts.make_folder(str(world.state / "cycles"), cycle.cycle)))
    left.mkdir()
    for name in ("suggest_rest", "curiosity_bees", "idle_reflection"):
        (left / f"{name}.json").write_text(json.dumps({"intent_type": name}))
    (left / "torn.json").write_text('{"intent')
    (world.state / "kick" / "cycle").unlink(missing_ok=True)
    _end(world, cycle, CycleEvent.SUCCEED)


def dead(world: World) -> None:
    """A runner, a KLoROS tool and a tick have died, each leaving something."""
    _run_dream(world, ("waiting",))
    gone = subprocess.Popen(["true"])
    gone.wait()
    host = os.uname().nodename
    foreign = {"name": "tool", "pid": gone.pid, "hostname": host, "started_at": clock.now().timestamp() - 900}
    (world.state / "locks" / "tool.lock").write_text(json.dumps(foreign))
    for folder in (".", "promotions_ack", "baseline", "signals", "intents", "cycles/cycle_00001"):
        (world.state / folder).mkdir(exist_ok=True)
        (world.state / folder / f".half.{gone.pid}.1.tmp").write_text("{")


def old(world: World) -> None:
    """Cycles have to go from disk, more than one tick removes; the baseline holds one of them."""
    world.decided()
    world.set(KLR_RETENTION_KEEP_LAST="0", KLR_RETENTION_KEEP_FOR="0")
    settings = configuration.load(world.environ)
    for number in (1, 2, 3):
        job = Job(JobName.DREAM, ("true",), "", timedelta(minutes=1))
        with world.store() as db, db.transaction():
            ledger.enqueue(db, job=job, origin=Origin(Cause.INTENT, "t"), token=str(number), now=clock.now())
            cycle = ledger.claim_next(db, runner="{}", now=clock.now())
            assert cycle is not None
            ledger.finish(db, cycle, CycleEvent.SUCCEED, Result(reason="exit code 0"), now=clock.now())
            ledger.settle(db, cycle.cycle, now=clock.now())
        folder = artifacts.make_folder(settings.cycles_dir, cycle.cycle)
        (Path(folder) / "artifacts" / "deep" / "deeper").mkdir(parents=True)
        (Path(folder) / "artifacts" / "deep" / "deeper" / "file").touch()
        bundle.make(folder, settings.bundles_dir, form=bundle.GZIP)
    content = {"schema": "v1", "parameters": {}, "fitness": 1.0, "cycle": 2, "promotions": [], "ts": 1}
    (world.state / "baseline").mkdir(exist_ok=True)
    (world.state / "baseline" / "baseline.json").write_text(json.dumps(content))


WORLDS: tuple[Callable[[World], None], ...] = (
    *(nothing, quiet, queue, asked, succeeded, failed, dates, phased, dead, old),
    *(watched, reflected),
)


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("prepare", WORLDS, ids=lambda prepare: prepare.__name__)
def test_killed_at_every_changing_call_the_next_ticks_reach_the_same_end(
    prepare: Callable[[World], None], share: int, warm: Warm, memory: Path
) -> None:
    world = World(memory, kicks=prepare is not nothing)
    prepare(world)
    world.keep()
    points, story = _reference(world, warm)
    chosen = points if prepare in (nothing, quiet) else changing(points)
    assert len(chosen) > 50
    killed = [_kill_and_follow(world, warm, point, story) for point in chosen[share::SHARES]]
    assert sum(killed) > 0.9 * len(killed)  # a run may make a call or two fewer than the recorded one


def _reference(world: World, warm: Warm) -> tuple[list[Point], dict[str, object]]:
    """Run it unkilled; what did it do, and to what end?"""
    world.put_back()
    points = warm.traced("run_once", world.environ, world.output, world.home / "trace")
    for _ in range(FOLLOWING):
        assert warm.run("run_once", world.environ, world.output) == 0, world.output.read_text()
    world.assert_always()
    return points, world.story()


def _kill_and_follow(world: World, warm: Warm, point: Point, story: dict[str, object]) -> bool:
    world.put_back()
    try:
        killed = warm.killed("run_once", world.environ, world.output, point)
        world.assert_whole()
        for _ in range(FOLLOWING):
            assert warm.run("run_once", world.environ, world.output) == 0, world.output.read_text()
            world.assert_whole()
        world.assert_always()
        assert world.story() == story
        return killed
    except AssertionError as fault:
        fault.add_note(f"killed before {point.name} number {point.number}: {point.text}")
        raise


def _intents(world: World) -> None:
    world.intend("suggest_something", thing=1)
    world.intend("alert_somebody", thing=2)
    world.intend("alert_somebody", thing=2)
    world.intend("run_away")
    stale = world.intend("suggest_late")
    stale.write_text(json.dumps({**json.loads(stale.read_text()), "generated_at": 1.0, "emitted_at": 1.0}))
    (world.state / "intents" / "0_torn.json").write_text('{"intent')
    _age(world)


def _age(world: World) -> None:
    """Make the intents old enough to be done being written."""
    for path in (world.state / "intents").glob("*.json"):
        os.utime(path, (path.stat().st_mtime - 60,) * 2)


def _run_dream(world: World, stems: tuple[str, ...]) -> tuple[Cycle, str]:
    """Have a tick queue a cycle for these promotions, and do what its runner does before the command."""
    for serial, stem in enumerate(stems):
        world.promote(stem, changes={"learning_rate": 0.01 * (serial + 1)})
    assert world.decided()["decision"] == "dream_cycle"
    with world.store() as db, db.transaction():
        cycle = ledger.claim_next(db, runner="{}", now=clock.now())
    assert cycle is not None
    folder = artifacts.make_folder(str(world.state / "cycles"), cycle.cycle)
    artifacts.hand_over(cycle, folder, configuration.load(world.environ), now=clock.now())
    (world.state / "kick" / "cycle").unlink(missing_ok=True)
    return cycle, folder


def _end_phase(world: World, score: float, *, day: date | None = None) -> None:
    """Do to a PHASE with this result, which answers this date, what its runner does."""
    origin = Origin(Cause.INTENT if day is None else Cause.WINDOW, "t")
    job = Job(JobName.PHASE, ("true",), "", timedelta(minutes=1))
    with world.store() as db, db.transaction():
        ledger.enqueue(db, job=job, origin=origin, token=os.urandom(8).hex(), now=clock.now(), phase_date=day)
        cycle = ledger.claim_next(db, runner="{}", now=clock.now())
        assert cycle is not None
        report = Path(artifacts.report_path(artifacts.make_folder(str(world.state / "cycles"), cycle.cycle)))
        report.write_text(json.dumps({"score": score}))
        ledger.finish(db, cycle, CycleEvent.SUCCEED, Result(reason="exit code 0", report=str(report)), now=clock.now())


def _end(world: World, cycle: Cycle, event: CycleEvent, *, verdicts: str | None = None) -> None:
    with world.store() as db, db.transaction():
        ledger.finish(db, cycle, event, Result(reason="exit code 0", report_sha=verdicts), now=clock.now())
