"""A disk that is full to a chosen page, or read-only: a tick says so and exits 74, nothing is lost or half written, and with
space again the next tick goes on as if nothing had been.

The disk is a small file system in memory, mounted by the test. It is filled to each level of free space in turn, from
nothing up to where a tick fits, so each write is the one that fails at some level. (`chmod` would prove nothing: root, as
whom this must run to mount, may write everywhere.)
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.faults import test_killed_anywhere as worlds
from tests.faults import test_runner_killed_anywhere as runners
from tests.faults.kill import Warm
from tests.faults.world import World

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="SKIPPED: full and read-only disks are not tested without root, for they are mounted: sudo"
)
PAGE = os.sysconf("SC_PAGE_SIZE")
SIZE = 2 * 1024 * 1024
INODES = 200
MOST_LEVELS = 200
Fill = Callable[[Path, int], AbstractContextManager[None]]
FULL = ("No space left on device", "database or disk is full", "inodes free")


@pytest.fixture
def disk(memory: Path) -> Iterator[Path]:
    """A file system of `SIZE` bytes."""
    place = memory / "disk"
    place.mkdir()
    options = f"size={SIZE},nr_inodes={INODES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "kloros-faults", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def world(memory: Path, disk: Path, request: pytest.FixtureRequest) -> World:
    """A host whose state folder is on that disk, and everything else is not."""
    world = World(memory, kicks=False, backoff="0s" if "cycle" in request.function.__name__ else "1h")
    world.state = disk / "state"
    world.set(KLR_STATE_DIR=str(world.state))
    (world.state / "kick").mkdir(parents=True)
    return world


@contextmanager
def filled(disk: Path, free: int) -> Iterator[None]:
    """Leave exactly `free` pages."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        available = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, (available.f_bavail * available.f_frsize // PAGE - free) * PAGE)
    assert os.statvfs(disk).f_bavail == free
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def filled_with_names(disk: Path, free: int) -> Iterator[None]:
    """Leave room for exactly `free` new files, however small."""
    fillers = [disk / f"filler{serial}" for serial in range(os.statvfs(disk).f_favail - free)]
    for filler in fillers:
        filler.touch()
    assert os.statvfs(disk).f_favail == free
    try:
        yield
    finally:
        for filler in fillers:
            filler.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@pytest.mark.parametrize("fill", [filled, filled_with_names], ids=["bytes", "inodes"])
@pytest.mark.parametrize("prepare", worlds.WORLDS[1:], ids=lambda prepare: prepare.__name__)
def test_whichever_write_finds_the_disk_full_nothing_is_lost(
    prepare: Callable[[World], None], fill: Fill, world: World, disk: Path, warm: Warm
) -> None:
    prepare(world)
    world.keep()
    story = _unhindered(world, warm)
    for free in range(MOST_LEVELS):
        world.put_back()
        try:
            with fill(disk, free):
                code = warm.run("run_once", world.environ, world.output)
                world.assert_whole()
            if code != Exit.DONE:
                _assert_says_why(world, code)
            _go_on(world, warm)
            assert world.story() == story
        except AssertionError as fault:
            fault.add_note(f"with {free} free")
            raise
        if code == Exit.DONE:
            break
    assert code == Exit.DONE, "a tick needs more than all levels"
    assert free > 1, "a full disk hindered nothing"


def test_on_a_disk_full_from_the_first_tick_on(world: World, disk: Path, warm: Warm) -> None:
    for free in range(MOST_LEVELS):
        world.put_back()
        with filled(disk, free):
            code = warm.run("run_once", world.environ, world.output)
        if code == Exit.DONE:
            break
        _assert_says_why(world, code)
        _go_on(world, warm)
    assert code == Exit.DONE
    assert free > 3


def test_little_room_is_told_before_there_is_none(world: World, disk: Path) -> None:
    def told() -> list[str]:
        world.decided()
        return [cause["condition"] for cause in json.loads((world.state / "latest.json").read_text())["causes"]]

    world.set(KLR_RETENTION_LOW_DISK=str(SIZE // 10))
    assert told() == []
    with filled(disk, SIZE // PAGE // 10 - 1):
        assert told() == ["disk_low"]
        world.set(KLR_RETENTION_LOW_DISK="0")
        assert told() == []


def test_a_line_that_finds_room_for_its_first_half_leaves_none_of_it(world: World, disk: Path, warm: Warm) -> None:
    history = world.state / "history.jsonl"
    world.decided()
    line = len(history.read_bytes())
    while PAGE - history.stat().st_size % PAGE > line // 2 or history.stat().st_size % PAGE == 0:
        if history.stat().st_size % PAGE + line < PAGE:
            assert warm.run("run_once", world.environ, world.output) == 0
        else:  # a little more, so that the next line begins in one page and ends in another
            history.write_bytes(history.read_bytes().rstrip(b"\n") + b" " * (line // 4) + b"\n")
    world.keep()
    for free in range(MOST_LEVELS):
        world.put_back()
        with filled(disk, free):
            code = warm.run("run_once", world.environ, world.output)
            world.assert_whole()
        _go_on(world, warm)
        if code == Exit.DONE:
            break
    assert code == Exit.DONE
    assert free > 3


@pytest.mark.parametrize("prepare", [runners.dream, runners.phase], ids=lambda prepare: prepare.__name__)
def test_a_cycle_that_finds_the_disk_full_is_tried_again(
    prepare: Callable[[World], None], world: World, disk: Path, warm: Warm
) -> None:
    prepare(world)
    world.decided()
    world.keep()
    for free in range(MOST_LEVELS):
        world.put_back()
        try:
            with filled(disk, free):
                code = warm.run("run_cycle", world.environ, world.output)
                assert code in (Exit.DONE, Exit.UNWRITABLE), world.output.read_text()
                world.assert_whole()
            runners.follow(world, warm)
            cycles, _ = runners.end(world)
        except AssertionError as fault:
            fault.add_note(f"with {free} free")
            raise
        assert cycles[0] in ("succeeded", "lost", "failed")
        assert cycles[-1] == "succeeded"
        if code == Exit.DONE and cycles == ["succeeded"]:
            break
    assert cycles == ["succeeded"]
    assert free > 10


@pytest.mark.parametrize("prepare", worlds.WORLDS[1:], ids=lambda prepare: prepare.__name__)
def test_a_read_only_state_folder_is_unwritable_and_stays_as_it_is(
    prepare: Callable[[World], None], world: World, disk: Path, warm: Warm
) -> None:
    prepare(world)
    world.keep()
    story = _unhindered(world, warm)
    world.put_back()
    with read_only(disk):
        code = warm.run("run_once", world.environ, world.output)
    assert code == Exit.UNWRITABLE, world.output.read_text()
    assert str(world.state) in world.output.read_text()
    _go_on(world, warm)
    assert world.story() == story


def test_a_full_disk_under_the_textfile_fails_no_tick(memory: Path, disk: Path, warm: Warm) -> None:
    world = World(memory)
    textfile = disk / "kloros.prom"
    world.set(KLR_TEXTFILE=str(textfile))
    world.decided()
    before = textfile.read_bytes()
    for free in range(3):
        with filled(disk, free):
            assert warm.run("run_once", world.environ, world.output) == Exit.DONE
            assert sorted(path.name for path in disk.iterdir()) == ["filler", "kloros.prom"]
    with read_only(disk):
        assert warm.run("run_once", world.environ, world.output) == Exit.DONE
    world.decided()
    assert textfile.read_bytes() != before
    world.assert_always()


def test_an_absent_folder_of_the_textfile_fails_no_tick(memory: Path, warm: Warm) -> None:
    world = World(memory)
    world.textfile.parent.rmdir()
    for _ in range(2):
        assert warm.run("run_once", world.environ, world.output) == Exit.DONE


def _unhindered(world: World, warm: Warm) -> dict[str, object]:
    world.put_back()
    assert warm.run("run_once", world.environ, world.output) == 0
    _go_on(world, warm)
    return world.story()


def _go_on(world: World, warm: Warm) -> None:
    for _ in range(2):
        assert warm.run("run_once", world.environ, world.output) == 0, world.output.read_text()
    world.assert_always()


def _assert_says_why(world: World, code: int) -> None:
    said = world.output.read_text()
    assert code == Exit.UNWRITABLE, f"exit code {code}: {said}"
    message = json.loads(said.splitlines()[-1])["message"]
    assert str(world.state) in message
    assert any(words in message for words in FULL), message
