"""No survivor, whatever the command's tree does and whoever dies.

The witness is a file that the tree's first process locks: every process forked from it shares the lock,
whatever else it sheds (session, parent, environment, signal handlers), so the lock is free exactly when the
last of them is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestration.errors import CommandLost
from orchestration.host import clock, process, process_tree
from orchestration.host.lock import FileLock
from tests.waiting import until

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")

REPOSITORY = str(Path(__file__).parents[2])
ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": REPOSITORY}

# argv: witness, file that gets a byte for each process that is in place, then a line of Python
TREE = """
import fcntl, os, signal, sys
witness = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.set_inheritable(witness, True)
fcntl.flock(witness, fcntl.LOCK_EX)
places = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
def stay():
    os.write(places, b".")
    while True:
        signal.pause()
def deaf():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
def bare():
    code = f"import os, signal; os.write({places}, b'.')\\nwhile True: signal.pause()"
    os.set_inheritable(places, True)
    os.execve(sys.executable, [sys.executable, "-S", "-c", code], {})
def far():
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
exec(sys.argv[3])
"""

BAD_TREES = {
    "its own session": "os.fork() or (os.setsid(), stay()); stay()",
    "double fork": "os.fork() or (far(), stay()); stay()",
    "deaf to TERM": "deaf(); os.fork() or (far(), stay()); stay()",
    "environment cleared": "deaf(); os.fork() or (far(), bare()); stay()",
    "stopped": "os.fork() or (os.write(places, b'.'), os.kill(os.getpid(), signal.SIGSTOP)); stay()",
    "parent gone": "os.fork() or (os.fork() and os._exit(0), stay()); stay()",
}


class Tree:
    """A command whose processes can be counted from outside."""

    def __init__(self, folder: Path, code: str, size: int) -> None:
        self.folder = folder
        self.size = size
        self.token = os.urandom(8).hex()  # of this tree alone: tests run beside each other, and this one's mark kills
        self._witness = folder / "witness"
        self._places = folder / "places"
        self.argv = [sys.executable, "-S", "-c", TREE, str(self._witness), str(self._places), code]

    def in_place(self) -> bool:
        return self._places.exists() and self._places.stat().st_size >= self.size

    def gone(self) -> bool:
        return FileLock(str(self._witness)).is_free()

    def run(self, **changed: Any) -> process.Completed:
        asked: dict[str, Any] = {
            "env": ENV,
            "cwd": str(self.folder),
            "output": str(self.folder / "output.log"),
            "output_limit": 10_000,
            "timeout": timedelta(minutes=5),
            "grace": timedelta(seconds=0.2),
            "should_stop": self.in_place,
            "poll": timedelta(milliseconds=10),
        }
        return process.run(self.argv, **(asked | changed))

    def run_elsewhere(self) -> subprocess.Popen[bytes]:
        """Have another process call `run`, so that it can be killed."""
        code = (
            "import sys; from datetime import timedelta; from orchestration.host import process;"
            f"process.run(sys.argv[1:], env={{**{ENV!r}, 'KLR_CYCLE_TOKEN': {self.token!r}}}, cwd='/',"
            f" output={str(self.folder / 'output.log')!r}, output_limit=9999, timeout=timedelta(minutes=5))"
        )
        return subprocess.Popen([sys.executable, "-c", code, *self.argv], env=ENV, start_new_session=True)


@pytest.mark.parametrize("code", BAD_TREES.values(), ids=BAD_TREES.keys())
def test_stopped_by_the_caller(tmp_path: Path, code: str) -> None:
    tree = Tree(tmp_path, code, size=2)
    assert tree.run().cancelled
    assert tree.gone()


@pytest.mark.parametrize("code", BAD_TREES.values(), ids=BAD_TREES.keys())
def test_caller_killed(tmp_path: Path, code: str) -> None:
    tree = Tree(tmp_path, code, size=2)
    caller = tree.run_elsewhere()
    until(tree.in_place, "the tree stands")
    caller.kill()
    caller.wait()
    until(tree.gone, "the tree is gone")


@pytest.mark.parametrize("code", BAD_TREES.values(), ids=BAD_TREES.keys())
def test_keeper_killed(tmp_path: Path, code: str) -> None:
    tree = Tree(tmp_path, code, size=2)
    command: list[int] = []

    def kill_the_keeper() -> bool:
        if tree.in_place():
            keepers = [p.parent for p in process_tree.all_processes() if p.pid == command[0]]
            if keepers and keepers[0] != os.getpid():
                os.kill(keepers[0], signal.SIGKILL)
        return False

    with pytest.raises(CommandLost, match="unknown"):
        tree.run(should_stop=kill_the_keeper, started=command.append)
    assert tree.gone()


def test_command_ended_and_left_processes_behind(tmp_path: Path) -> None:
    code = "os.fork() or (far(), stay())\nwhile os.fstat(places).st_size < 1: pass"
    tree = Tree(tmp_path, code, size=1)
    completed = tree.run(should_stop=None)
    assert (completed.returncode, completed.leftovers) == (0, 1)
    assert "left behind" in completed.describe()
    assert tree.gone()


def test_left_behind_and_deaf(tmp_path: Path) -> None:
    code = "deaf(); os.fork() or (far(), stay())\nwhile os.fstat(places).st_size < 1: pass"
    tree = Tree(tmp_path, code, size=1)
    assert tree.run(should_stop=None).leftovers == 1
    assert tree.gone()


# Each generation forks on at once; the pipe holds a token for each process there may ever be, so that a
# failure of ours does not take the host down with it.
BOMB = """
deaf()
tokens, tokens_in = os.pipe()
os.write(tokens_in, b"t" * 3000)
os.close(tokens_in)
os.write(places, b".")
while os.read(tokens, 1):
    if not os.fork():
        {each}
stay()
"""


@pytest.mark.parametrize("each", ["os.write(places, b'.')", "os.setsid(); os.write(places, b'.')"])
def test_fork_bomb(tmp_path: Path, each: str) -> None:
    tree = Tree(tmp_path, BOMB.format(each=each), size=100)
    assert tree.run(grace=timedelta(0)).cancelled
    assert tree.gone()


# The command, 99 children, and four grandchildren of each in sessions of their own.
BIG = """
deaf()
for child in range(99):
    if not os.fork():
        for grandchild in range(4):
            os.fork() or (far(), stay())
        stay()
stay()
"""


def test_five_hundred_processes_are_gone_within_a_second_of_the_kill(tmp_path: Path) -> None:
    tree = Tree(tmp_path, BIG, size=496)
    caller = tree.run_elsewhere()
    until(tree.in_place, "500 processes stand", within=60)
    begun = clock.monotonic()
    caller.kill()
    until(tree.gone, "the tree is gone")
    assert clock.monotonic() - begun < 1.0
    caller.wait()


def test_a_dead_runners_leftovers_are_found_by_their_mark(tmp_path: Path) -> None:
    """Caller and keeper die in the same instant: only what stands in /proc/<pid>/environ is left to go by."""
    tree = Tree(tmp_path, "deaf(); os.fork() or (far(), stay()); stay()", size=2)
    caller = tree.run_elsewhere()
    until(tree.in_place, "the tree stands")
    keeper = next(p.pid for p in process_tree.all_processes() if p.parent == caller.pid)
    command = next(p.pid for p in process_tree.all_processes() if p.parent == keeper)
    os.kill(caller.pid, signal.SIGSTOP)
    os.kill(keeper, signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    caller.kill()
    caller.wait()
    until(lambda: not any(p.pid == command and p.runs for p in process_tree.all_processes()), "it ends with its keeper")
    assert not tree.gone()
    assert process.kill_marked(tree.token) == 1
    assert tree.gone()
    assert process.kill_marked(tree.token) == 0
    assert process.kill_marked("") == 0


def test_the_callers_lock_is_free_only_when_the_tree_is_gone(tmp_path: Path) -> None:
    """The keeper keeps a killed caller's locks, so nobody takes its place beside a tree that still runs."""
    tree = Tree(tmp_path, "deaf(); os.fork() or (far(), stay()); stay()", size=2)
    lock = FileLock(str(tmp_path / "runner.lock"))
    code = (
        "import sys; from datetime import timedelta; from orchestration.host import process, lock\n"
        f"with lock.FileLock({lock.path!r}).held('runner'):\n"
        f"  process.run(sys.argv[1:], env={ENV!r}, cwd='/', output={str(tmp_path / 'output.log')!r},"
        " output_limit=9999, timeout=timedelta(minutes=5))"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, *tree.argv], env=ENV)
    until(tree.in_place, "the tree stands")
    keeper = next(p.pid for p in process_tree.all_processes() if p.parent == caller.pid)
    os.kill(keeper, signal.SIGSTOP)
    caller.kill()
    caller.wait()
    assert not lock.is_free()
    os.kill(keeper, signal.SIGCONT)
    until(lock.is_free, "the lock is free")
    assert tree.gone()
