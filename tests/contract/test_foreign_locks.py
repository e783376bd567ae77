"""Lock files of KLoROS's tools, with real processes, real kernel locks and a real /proc."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestration
from orchestration.cycles import foreign_locks
from orchestration.cycles.foreign_locks import NOTHING, OURS, parse_holder, reap_foreign_locks
from orchestration.errors import Unwritable

HOST = os.uname().nodename
BOOT = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    folder = tmp_path / "locks"
    folder.mkdir()
    return folder


def own_start() -> float:
    """Say when this very process started, in epoch seconds."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return BOOT + ticks / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def dead_pid() -> int:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    return child.pid


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that has said it is ready."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        try:
            yield child
        finally:
            child.kill()


def write_json(path: Path, pid: int, *, started: float | None = None, host: str = HOST, age: float = 0.0) -> Path:
    """Write what state_manager.py writes."""
    record = {
        "name": path.stem,
        "pid": pid,
        "hostname": host,
        "started_at": time.time() if started is None else started,
        "path": str(path),
    }
    path.write_text(json.dumps(record, indent=2))
    stamp = time.time() - age
    os.utime(path, (stamp, stamp))
    return path


def write_text(path: Path, pid: int, *, started: float | None = None) -> Path:
    """Write what gpu_maintenance_lock.py writes."""
    path.write_text(f"spica-canary:{pid}:{time.time() if started is None else started}\n")
    return path


def test_no_folder_and_no_foreign_file_are_nothing(locks: Path) -> None:
    assert reap_foreign_locks(str(locks / "absent")) is NOTHING
    for name in ("orchestrator.lock", "runner.lock", ".x.lock", "notes.txt"):
        (locks / name).write_bytes(b"")
    assert reap_foreign_locks(str(locks)) is NOTHING
    with pytest.raises(Unwritable, match="can't be listed"):
        reap_foreign_locks(str(locks / "notes.txt"))


@pytest.mark.parametrize("write", [write_json, write_text])
def test_the_file_of_a_dead_process_is_removed(locks: Path, dead_pid: int, write: type) -> None:
    path = write(locks / "gpu_maintenance.lock", dead_pid)
    assert reap_foreign_locks(str(locks)).removed == ("gpu_maintenance.lock",)
    assert not path.exists()


def test_every_lock_that_the_program_takes_is_known_as_ours() -> None:
    sources = (path.read_text() for path in Path(orchestration.__file__).parent.rglob("*.py"))
    taken = {name for text in sources for name in re.findall(r"\"locks\", \"([a-z]+\.lock)\"", text)}
    assert taken == OURS


@pytest.mark.parametrize("name", sorted(OURS))
def test_ours_are_never_removed_whatever_they_say(locks: Path, dead_pid: int, name: str) -> None:
    path = write_json(locks / name, dead_pid)
    reap_foreign_locks(str(locks))
    assert path.exists()


@pytest.mark.parametrize("write", [write_json, write_text])
def test_a_live_holders_file_stays_however_old(locks: Path, write: type) -> None:
    path = write(locks / "dream.lock", os.getpid(), started=own_start() + 0.5)
    os.utime(path, (0, 0))
    before = path.read_bytes()
    assert reap_foreign_locks(str(locks)) == NOTHING
    assert path.read_bytes() == before


@pytest.mark.parametrize("write", [write_json, write_text])
def test_a_reused_pid_holds_nothing(locks: Path, write: type) -> None:
    path = write(locks / "dream.lock", os.getpid(), started=own_start() - 60)
    assert reap_foreign_locks(str(locks)).removed == ("dream.lock",)
    assert not path.exists()


def test_what_was_written_before_this_boot_is_dead(locks: Path) -> None:
    write_json(locks / "dream.lock", 1, started=BOOT - 60)
    assert reap_foreign_locks(str(locks)).removed == ("dream.lock",)


def test_a_zombie_is_dead(locks: Path) -> None:
    child = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet collected
        write_json(locks / "dream.lock", child.pid)
        assert reap_foreign_locks(str(locks)).removed == ("dream.lock",)
    finally:
        child.wait()


def test_a_killed_tool_leaves_a_file_that_goes_and_a_living_one_does_not(locks: Path) -> None:
    path = locks / "dream.lock"
    code = (
        "import fcntl, json, os, socket, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o600)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "record = dict(name='dream', pid=os.getpid(), hostname=socket.gethostname(), started_at=time.time())\n"
        "os.write(fd, json.dumps(record, indent=2).encode())\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with running(sys.executable, "-c", code, str(path)) as child:
        assert reap_foreign_locks(str(locks)) == NOTHING
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert reap_foreign_locks(str(locks)).removed == ("dream.lock",)


@pytest.mark.parametrize("lock", ["flock", "lockf"])
def test_a_kernel_lock_protects_whatever_the_file_says(locks: Path, dead_pid: int, lock: str) -> None:
    path = write_json(locks / "dream.lock", dead_pid)
    code = (
        "import fcntl, sys\n"
        f"file = open(sys.argv[1], 'r+')\nfcntl.{lock}(file, fcntl.LOCK_EX)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with running(sys.executable, "-c", code, str(path)):
        assert reap_foreign_locks(str(locks)) == NOTHING
    assert reap_foreign_locks(str(locks)).removed == ("dream.lock",)


def test_another_hosts_file_stays(locks: Path, dead_pid: int) -> None:
    path = write_json(locks / "dream.lock", dead_pid, host=f"not-{HOST}", started=BOOT - 60)
    assert reap_foreign_locks(str(locks)) == NOTHING
    assert path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"{}",
        b"[1]",
        b"4711",
        b"a:b:c",
        b"a:-1:5",
        b"a:0:5",
        b"a:4711:nan",
        b"a:4711:inf",
        b'{"pid": true, "hostname": "h", "started_at": 5}',
        b'{"pid": 4711, "started_at": 5}',
        b'{"pid": 4711, "hostname": "", "started_at": 5}',
        b'{"pid": 4711, "hostname": "h", "started_at": "5"}',
        b'{"pid": 99999999999, "hostname": "h", "started_at": 5}',
        b'{"pid": 4711, "hostname": "h", "started_at": 1e300}',
        b"{" * 60_000,
        b"a:4711:5" + b" " * 100_000,
    ],
)
def test_what_is_no_lock_file_of_a_known_form_stays_and_is_told_once(locks: Path, content: bytes) -> None:
    (locks / "odd.lock").write_bytes(content)
    first = reap_foreign_locks(str(locks))
    second = reap_foreign_locks(str(locks), told=first.unreadable)
    assert (first.removed, first.unreadable, first.news) == ((), ("odd.lock",), ("odd.lock",))
    assert (second.unreadable, second.news) == (("odd.lock",), ())
    assert (locks / "odd.lock").read_bytes() == content


def test_what_is_no_file_is_neither_opened_nor_followed(locks: Path, dead_pid: int) -> None:
    target = write_json(locks.parent / "elsewhere", dead_pid)
    (locks / "link.lock").symlink_to(target)
    os.mkfifo(locks / "fifo.lock")
    (locks / "folder.lock").mkdir()
    assert reap_foreign_locks(str(locks)).unreadable == ("fifo.lock", "folder.lock", "link.lock")
    assert target.exists()
    assert len(list(locks.iterdir())) == 3


def test_a_pass_keeps_no_lock_and_no_descriptor(locks: Path, dead_pid: int) -> None:
    live = write_json(locks / "live.lock", os.getpid())
    write_json(locks / "dead.lock", dead_pid)
    before = len(os.listdir("/proc/self/fd"))
    reap_foreign_locks(str(locks))
    assert len(os.listdir("/proc/self/fd")) == before
    with live.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_file_that_took_the_name_meanwhile_stays(locks: Path, dead_pid: int) -> None:
    path = write_json(locks / "dream.lock", dead_pid)
    with path.open("rb") as judged:
        content = judged.read()
        path.unlink()
        write_json(path, os.getpid())
        assert not foreign_locks._remove(str(path), judged.fileno(), content)
    with path.open("rb") as judged:
        write_json(path, os.getpid(), started=5)
        assert not foreign_locks._remove(str(path), judged.fileno(), content)
    assert path.exists()


@given(st.binary() | st.from_regex(r"[a-z]{0,5}:[0-9]{0,12}:[0-9.e+-]{0,12}\n?", fullmatch=True).map(str.encode))
def test_any_bytes_are_a_holder_or_nothing(content: bytes) -> None:
    holder = parse_holder(content)
    assert holder is None or holder.pid > 0
