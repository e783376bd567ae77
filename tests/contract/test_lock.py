"""What `FileLock` promises: exclusive by the kernel, whatever stands in the file."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestration.errors import LockHeld, Unwritable
from orchestration.exits import Exit
from orchestration.host import clock, process_identity
from orchestration.host.lock import FileLock

REPOSITORY = str(Path(__file__).parents[2])


@pytest.fixture
def lock(tmp_path: Path) -> FileLock:
    return FileLock(str(tmp_path / "locks" / "orchestrator.lock"))


def test_it_is_held_within_the_block_only(lock: FileLock) -> None:
    assert lock.is_free()
    with lock.held("tick-1"):
        assert not lock.is_free()
    assert lock.is_free()
    with lock.held("tick-2"):
        pass


def test_a_second_holder_is_refused_at_once_and_told_who_holds_it(lock: FileLock) -> None:
    with (
        lock.held("tick-1"),
        pytest.raises(LockHeld, match=f"tick-1, pid {os.getpid()} on ") as refused,
        lock.held("x"),
    ):
        pass
    assert refused.value.exit is Exit.LOCK_HELD


HOLD = """
import sys
from orchestration.host.lock import FileLock
with FileLock(sys.argv[1]).held("tick-1"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_with_patience_gets_it_as_soon_as_it_is_free(lock: FileLock) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, lock.path], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(LockHeld, match="tick-1"), lock.held("x", patience=0.05):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    begun = clock.monotonic()
    threading.Timer(0.2, child.stdin.close).start()
    with lock.held("x", patience=60):
        assert json.loads(Path(lock.path).read_text())["holder"] == "x"
    assert 0.1 < clock.monotonic() - begun < 30
    child.stdout.close()
    assert child.wait() == 0


def test_an_error_in_the_block_frees_it(lock: FileLock) -> None:
    with pytest.raises(RuntimeError), lock.held("tick-1"):
        raise RuntimeError
    assert lock.is_free()


def test_the_file_stays_and_its_record_is_complete(lock: FileLock) -> None:
    with lock.held("a holder with a very long name, longer than the next"):
        pass
    inode = os.stat(lock.path).st_ino
    with lock.held("tick-2"):
        record = json.loads(Path(lock.path).read_text())
    assert os.stat(lock.path).st_ino == inode
    identity = process_identity.current()
    assert (record["boot_id"], record["pid"], record["start_time"]) == tuple(identity)
    assert (record["holder"], record["host"]) == ("tick-2", os.uname().nodename)
    assert record["taken_at"].endswith("Z")
    assert "tick-2" in lock.record()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b'{"name": "gpu", "pid": 12, "hostname": "h", "started_at": 1700000000.5}',
            "gpu, pid 12 on h since 1700000000.5",
        ),
        (b"spica:4711:1700000000", "spica:4711:1700000000"),
        (b"", "the file is empty"),
        (b"\xff\x00\x1b[2J", "the file says"),
        (b"[1, 2]", r"\[1, 2\]"),
        (b'{"pid": "no"', "pid"),
        (b"[" * 4096, "the file says"),
    ],
)
def test_whatever_the_file_says_only_the_kernel_counts(lock: FileLock, content: bytes, told: str) -> None:
    os.makedirs(os.path.dirname(lock.path))
    Path(lock.path).write_bytes(content)
    assert lock.is_free()
    with open(lock.path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as KLoROS's own tools do
        assert not lock.is_free()
        with pytest.raises(LockHeld, match=told) as refused, lock.held("tick-1"):
            pass
        assert "\x1b" not in str(refused.value)
        assert Path(lock.path).read_bytes() == content
    with lock.held("tick-1"):
        pass


def test_probing_writes_nothing_and_makes_nothing(lock: FileLock, tmp_path: Path) -> None:
    assert lock.is_free()
    assert lock.record() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_frees_it(lock: FileLock) -> None:
    code = (
        "import sys, signal; from orchestration.host.lock import FileLock\n"
        "with FileLock(sys.argv[1]).held('doomed'):\n  print('held', flush=True); signal.pause()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, lock.path], env={"PYTHONPATH": REPOSITORY}, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not lock.is_free()
        holder.kill()
    assert lock.is_free()
    with lock.held("tick-2"):
        pass


def test_a_command_started_meanwhile_does_not_inherit_it(lock: FileLock) -> None:
    with lock.held("tick-1"):
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
    assert lock.is_free()
    child.kill()
    child.wait()


def test_reading_the_file_meanwhile_does_not_lose_it(lock: FileLock) -> None:
    with lock.held("tick-1"):
        Path(lock.path).read_bytes()
        assert not lock.is_free()


def test_an_impossible_place_is_unwritable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(Unwritable, match=os.strerror(errno.ENOTDIR)),
        FileLock(str(tmp_path / "file/x.lock")).held("x"),
    ):
        pass
