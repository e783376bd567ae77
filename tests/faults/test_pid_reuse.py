"""A pid that belongs to another process now: nothing alive is touched, everything dead is reaped, and no decision rests on
a pid alone (design rule 3).

A living process of the test plays the one that has the pid now; what a dead one left names this pid with an earlier start.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cause, Cycle, JobName, Origin
from orchestration.cycles.job import Job
from orchestration.host import clock, process_identity
from orchestration.host.process_identity import ProcessIdentity
from tests.faults.kill import Warm
from tests.faults.world import World

TOKEN = "0123456789abcdef"


@pytest.fixture
def world(memory: Path, warm: Warm) -> World:
    world = World(memory)
    assert warm.run("run_once", world.environ, world.output) == 0
    return world


@pytest.fixture
def alive() -> Iterator[ProcessIdentity]:
    """A process that has nothing to do with us."""
    with _sleeping() as identity:
        yield identity


@contextmanager
def _sleeping(**environ: str) -> Iterator[ProcessIdentity]:
    process = subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], **environ})
    try:
        identity = process_identity.identify(process.pid)
        assert identity is not None
        yield identity
    finally:
        process.kill()
        process.wait()


def test_temporary_files_of_the_pids_earlier_process_go_and_those_of_the_living_stay(
    world: World, warm: Warm, alive: ProcessIdentity
) -> None:
    names = ("promotions_ack", "baseline", "signals", "intents")
    folders = [world.state, world.textfile.parent, *(world.state / name for name in names)]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        for start in (alive.start_time, alive.start_time - 1):
            (folder / f".half.{alive.pid}.{start}.tmp").write_text("{")
    for _ in range(3):
        assert warm.run("run_once", world.environ, world.output) == 0
    left = [(path.parent, path.name) for path in world.files() if path.suffix == ".tmp"]
    assert sorted(left) == sorted((folder, f".half.{alive.pid}.{alive.start_time}.tmp") for folder in folders)
    assert world.counter("kloros_orchestrator_reaped_total", 'kind="temporary_file"') == len(folders)


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("locked", [False, True], ids=["free", "locked"])
@pytest.mark.parametrize("holder", ["living", "reused", "dead"])
def test_a_kloros_tools_lock_file(
    world: World, warm: Warm, alive: ProcessIdentity, holder: str, locked: bool, form: str
) -> None:
    pid = _dead_pid() if holder == "dead" else alive.pid
    noted = clock.now().timestamp() - (0 if holder == "living" else 86400)
    record = {"name": "tool", "pid": pid, "hostname": os.uname().nodename, "started_at": noted}
    path = world.state / "locks" / "gpu_maintenance.lock"
    path.write_text(json.dumps(record) if form == "json" else f"tool:{pid}:{noted}")
    os.utime(path, (1, 1))  # its age proves nothing
    with path.open() as file:
        if locked:
            fcntl.flock(file, fcntl.LOCK_EX)
        assert warm.run("run_once", world.environ, world.output) == 0
    assert path.exists() == (locked or holder == "living")
    assert process_identity.is_alive(alive)


@pytest.mark.parametrize("recorded", ["living", "reused", "dead", "nothing"])
@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
def test_only_the_runners_lock_tells_whether_a_cycle_is_lost(
    world: World, warm: Warm, alive: ProcessIdentity, recorded: str, held: bool
) -> None:
    identities = {
        "living": alive._asdict(),
        "reused": alive._replace(start_time=alive.start_time - 1)._asdict(),
        "dead": alive._replace(pid=_dead_pid())._asdict(),
        "nothing": {},
    }
    _running(world, json.dumps(identities[recorded]))
    path = world.state / "locks" / "runner.lock"
    path.write_text(json.dumps({"holder": "runner", **identities[recorded]}))
    with path.open() as lock:
        if held:
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert warm.run("run_once", world.environ, world.output) == 0
        assert [row["state"] for row in world.table("cycles")] == ["running" if held else "lost"]
    assert process_identity.is_alive(alive), "a pid in a record is nobody to kill"


def test_of_a_lost_cycle_only_what_bears_its_token_is_ended(world: World, warm: Warm, alive: ProcessIdentity) -> None:
    _running(world, json.dumps(alive._asdict()))
    mark = "KLR_CYCLE_TOKEN"
    with (
        _sleeping(**{mark: TOKEN}) as own,
        _sleeping(**{mark: TOKEN + "0"}) as longer,
        _sleeping(**{mark: TOKEN[:-1]}) as shorter,
        _sleeping(**{f"X{mark}": TOKEN}) as other,
    ):
        assert warm.run("run_once", world.environ, world.output) == 0
        assert not process_identity.is_alive(own)
        assert all(map(process_identity.is_alive, (longer, shorter, other, alive)))


def test_a_free_lock_is_free_whoever_its_record_names(world: World, warm: Warm, alive: ProcessIdentity) -> None:
    record = {"holder": "tick", **alive._asdict(), "host": os.uname().nodename}
    (world.state / "locks" / "orchestrator.lock").write_text(json.dumps(record))
    assert warm.run("run_once", world.environ, world.output) == 0


def _dead_pid() -> int:
    gone = subprocess.Popen(["true"])
    gone.wait()
    return gone.pid


def _running(world: World, runner: str) -> Cycle:
    job = Job(JobName.DREAM, ("true",), "", timedelta(minutes=1))
    with world.store() as db, db.transaction():
        ledger.enqueue(db, job=job, origin=Origin(Cause.PROMOTIONS, "t"), token=TOKEN, now=clock.now())
        cycle = ledger.claim_next(db, runner=runner, now=clock.now())
    assert cycle is not None
    return cycle
