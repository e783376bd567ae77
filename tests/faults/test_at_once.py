"""Many at once on one state: one decides at a time, the others say so, and everything adds up."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from orchestration import configuration, wiring
from orchestration.cycles import artifacts, ledger
from orchestration.cycles.cycle import Cycle, CycleEvent, Result
from orchestration.exits import Exit
from orchestration.host import clock
from orchestration.host.lock import FileLock
from orchestration.settings import Settings
from orchestration.store.sqlite import SqliteDatabase
from orchestration.tick.kernel import Kernel
from orchestration.tick.tick import tick
from tests.acceptance.host import script
from tests.faults.world import World

MANY = 20


@pytest.fixture
def world(memory: Path) -> World:
    return World(memory)


def at_once(world: World, *entries: str) -> Counter[int]:
    """Start all of them, then wait for all; how often each exit code came."""
    started = [_start(world, entry) for entry in entries]
    errors = [process.communicate(timeout=120)[1] for process in started]
    codes = Counter(process.returncode for process in started)
    assert set(codes) <= {Exit.DONE, Exit.LOCK_HELD}, errors
    return codes


def test_twenty_ticks_at_once_queue_one_cycle_and_are_all_accounted_for(world: World) -> None:
    # Eleven that are turned away before the last one runs would rightly leave a suggestion more.
    world.configure("[observer.rules.lock_contention]\nenabled = false\n")
    for serial in range(5):
        world.promote(f"good{serial}")
        world.promote(f"bad{serial}", fitness=-1)
        world.intend("suggest_something", serial=serial)
    codes = at_once(world, *["run_once"] * MANY)
    assert codes[Exit.DONE] >= 1
    assert len(world.table("cycles")) == 1
    assert len(world.table("ticks")) == MANY
    assert world.counter("kloros_orchestrator_lock_contention_total") == codes[Exit.LOCK_HELD]
    assert world.counter("kloros_promotions_total", 'verdict="invalid"') == 5
    assert world.counter("kloros_intents_total", 'status="processed"') == 5
    assert len((world.state / "suggestions.jsonl").read_text().splitlines()) == 5
    world.decided()
    world.assert_always()


def test_the_first_ticks_ever_at_once(world: World) -> None:
    codes = at_once(world, *["run_once"] * MANY)
    assert sum(codes.values()) == len(world.table("ticks")) == MANY
    world.decided()
    world.assert_always()


def test_ticks_while_a_cycle_runs_start_nothing_and_one_of_many_settles_it(world: World) -> None:
    gate, begun = world.home / "gate", world.home / "begun"
    for fifo in (gate, begun):
        os.mkfifo(fifo)
    world.set(KLR_DREAM_COMMAND=f"sh {script(world.home, 'job', (f'echo > {begun}', f'cat {gate}'))}")
    world.promote("tried")
    world.decided()
    runner = _start(world, "run_cycle")
    subprocess.run(["cat", begun], check=True, timeout=60, stdout=subprocess.DEVNULL)
    world.promote("late")
    at_once(world, *["run_once", "run_cycle"] * 5)
    assert [row["state"] for row in world.table("cycles")] == ["running"]
    gate.write_text("")
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == 0, said
    at_once(world, *["run_once"] * 10)
    assert world.ack("tried")["accepted"]
    assert [row["state"] for row in world.table("cycles")] == ["succeeded", "queued"]
    assert world.counter("kloros_cycles_total", 'job="dream",result="succeeded"') == 1
    assert world.counter("kloros_promotions_total", 'verdict="accepted"') == 1
    world.decided()
    world.assert_always()


def test_a_burst_of_kicks_runs_the_cycle_once(world: World) -> None:
    ran = world.home / "ran"
    world.set(KLR_DREAM_COMMAND=f"sh {script(world.home, 'job', (f'echo $KLR_CYCLE >> {ran}',))}")
    world.promote("tried")
    world.decided()
    for _ in range(2):
        at_once(world, *["run_cycle", "run_once"] * 8)
    world.decided()
    assert ran.read_text().split() == ["1"]
    assert [row["state"] for row in world.table("cycles")] == ["succeeded"]
    assert json.loads((world.state / "baseline" / "baseline.json").read_text())["cycle"] == 1
    world.assert_always()


def _start(world: World, entry: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"orchestration.{entry}"],
        env=world.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_cycle_that_ends_while_a_tick_is_at_it_is_tried_only_once(world: World) -> None:
    """The runner may end between any two steps of a tick; here it does at each look at the clock in turn."""
    world.promote("tried")
    world.decided()
    with world.store() as db, db.transaction():
        cycle = ledger.claim_next(db, runner="{}", now=clock.now())
    assert cycle is not None
    settings = configuration.load(world.environ)
    artifacts.hand_over(cycle, artifacts.make_folder(settings.cycles_dir, cycle.cycle), settings, now=clock.now())
    world.keep()
    for moment in itertools.count(1):
        world.put_back()
        looks = _tick_with_an_end(world, settings, cycle, moment)
        if looks < moment:
            break
        world.decided()
        assert world.ack("tried")["accepted"]
        assert [row["state"] for row in world.table("cycles")] == ["succeeded"], f"ended at look {moment}"
        world.assert_always()
    assert moment > 5


def _tick_with_an_end(world: World, settings: Settings, cycle: Cycle, moment: int) -> int:
    """Do a tick in which the cycle succeeds at the given look at the clock; how often did it look?"""
    looks = 0
    runner = FileLock(str(world.state / "locks" / "runner.lock"))
    with wiring.kernel(settings, world.environ) as kernel, world.store() as db, ExitStack() as lock:
        lock.enter_context(runner.held("runner"))

        def now() -> datetime:
            nonlocal looks
            looks += 1
            if looks == moment and not _is_writing(kernel):
                with db.transaction():
                    ledger.finish(db, cycle, CycleEvent.SUCCEED, Result(reason="exit code 0"), now=clock.now())
                lock.close()
            return clock.now()

        tick(kernel._replace(now=now), "a-tick")
        if looks >= moment and any(row["state"] == "running" for row in world.table("cycles")):
            with db.transaction():  # it looked inside its transaction, where no other can write
                ledger.finish(db, cycle, CycleEvent.SUCCEED, Result(reason="exit code 0"), now=clock.now())
    return looks


def _is_writing(kernel: Kernel) -> bool:
    return isinstance(kernel.db, SqliteDatabase) and kernel.db._connection.in_transaction
