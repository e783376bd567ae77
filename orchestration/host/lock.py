"""An exclusive lock that the kernel keeps: `flock(2)` on a file that is never removed.

Owns taking, holding and probing it; refuses to know what it protects. KLoROS's own tools lock the same way,
so old and new exclude each other. The kernel frees the lock when the last copy of the descriptor closes,
however its process ended, so there is no stale lock. What stands in the file (our JSON, KLoROS's JSON `name,
pid, hostname, started_at`, its text `holder:pid:time`, or anything else) is for people: nothing is decided by
it. POSIX locks (`lockf`) are no choice: they are lost as soon as the same process opens and closes the file
once more (fcntl(2)).

A forked child that does not exec shares the lock. `host/process.py` uses this: its keeper holds on to the
caller's locks until the command's tree is gone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestration.errors import LockHeld
from orchestration.host import clock, process_identity
from orchestration.host.files import unwritable

if TYPE_CHECKING:
    from collections.abc import Iterator

_RECORD_LIMIT = 4096
PATIENCE = 10.0
"""Seconds that a person's command waits for a lock that a tick holds: a tick decides in less, however much it finds."""
_CONTENDED = (errno.EWOULDBLOCK, errno.EACCES)


class FileLock:
    """One kernel lock at a path, free or held by one process and its forked children."""

    def __init__(self, path: str) -> None:
        self.path = path

    @contextmanager
    def held(self, holder: str, *, patience: float = 0.0) -> Iterator[None]:
        """Hold the lock for the length of the block.

        Args:
            holder: who we are, for people (a tick id, `runner`, a command's name).
            patience: seconds to wait for it, in a process's main thread only; by default it does not wait.

        Raises:
            LockHeld: another open description holds it; the message carries the record found in the file.
            Unwritable: the file can't be opened or made.
        """
        descriptor = self._open()
        try:
            try:
                _take(descriptor, patience)
            except OSError as error:
                if error.errno not in _CONTENDED:
                    raise
                raise LockHeld(
                    f"{self.path} is locked by {_describe(_read(descriptor))}",
                    hint=f"Nothing to repair: it ends with its process. See which: fuser -v {self.path}",
                ) from None
            _write(descriptor, holder)
            yield
        finally:
            os.close(descriptor)

    def is_free(self) -> bool:
        """Say whether nobody holds the lock at this moment, without writing a byte.

        Takes a shared lock for some microseconds; who tries `held` in them is turned away, so a process whose
        start must not fail for that tries more than once.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _CONTENDED:
                raise
            return False
        finally:
            os.close(descriptor)
        return True

    def record(self) -> str:
        """Describe the holder noted in the file, for people; empty when nothing is noted."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        try:
            content = _read(descriptor)
        finally:
            os.close(descriptor)
        return _describe(content) if content.strip() else ""

    def outlived(self) -> int | None:
        """Give the pid in a record of ours whose process is dead, so that another has the lock if it is held; else None.

        A record without boot and start time (KLoROS's own) says too little, and so does one from another host.
        """
        try:
            with open(self.path, "rb") as file:
                record = json.loads(file.read(_RECORD_LIMIT))
            noted = process_identity.ProcessIdentity(record["boot_id"], int(record["pid"]), int(record["start_time"]))
            here = record["host"] == os.uname().nodename
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return noted.pid if here and not process_identity.is_alive(noted) else None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            try:
                return os.open(self.path, flags, 0o600)
            except FileNotFoundError:
                folder = os.path.dirname(self.path)
                for made in (os.path.dirname(folder), folder):  # makedirs gives its mode to the last one only
                    os.makedirs(made or ".", mode=0o700, exist_ok=True)
                return os.open(self.path, flags, 0o600)
        except OSError as error:
            raise unwritable(self.path, error) from error


def _take(descriptor: int, patience: float) -> None:
    """Take the lock; raises BlockingIOError when somebody has it for longer than `patience`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if not patience or error.errno not in _CONTENDED:
            raise
        _wait(descriptor, patience)


def _wait(descriptor: int, patience: float) -> None:
    """Let the kernel wake us when the lock is free, and the alarm when we have waited long enough."""
    import signal

    def give_up(_number: int, _frame: object) -> None:
        raise BlockingIOError(errno.EWOULDBLOCK, "held by somebody else for too long")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, patience)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _write(descriptor: int, holder: str) -> None:
    own = process_identity.current()
    record = {
        "holder": holder,
        "pid": own.pid,
        "start_time": own.start_time,
        "boot_id": own.boot_id,
        "host": os.uname().nodename,
        "taken_at": clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    content = (json.dumps(record) + "\n").encode()
    try:
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
    except OSError:
        pass  # the record is for people; on a full disk the lock is as good without it


def _read(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, _RECORD_LIMIT, 0)
    except OSError:
        return b""


def _describe(content: bytes) -> str:
    text = content.decode("utf-8", "replace").strip()
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, dict):
        who = record.get("holder", record.get("name", "somebody"))
        since = record.get("taken_at", record.get("started_at", "an unknown time"))
        host = record.get("host", record.get("hostname", "an unknown host"))
        return _printable(f"{who}, pid {record.get('pid', 'unknown')} on {host} since {since}")
    return f"another process (the file {f'says {_printable(text)!r}' if text else 'is empty'})"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text[:300])
