"""Lock files that KLoROS's own tools left in `locks/`: those of the dead are removed, nobody else's is touched.

Owns the two forms such files have and the proof that their holder is gone; never looks at our own locks.

Forms, both from HomoYouDidnt/kloros: src/kloros/orchestration/state_manager.py writes `<name>.lock` as JSON with
`name, pid, hostname, started_at` (epoch seconds, float) while it holds `flock` on the file, and leaves the file when
it releases; src/kloros/orchestration/gpu_maintenance_lock.py creates `gpu_maintenance.lock` with the text
`holder:pid:time`, holds no kernel lock, and removes it.

A file goes when all of this holds: it names this host; its process is gone, that is, no process has the pid, or the
one that has it started after the file was written, or the file was written before this boot; nobody holds a kernel
lock on it; and while we hold that lock ourselves, the name still leads to the same inode with the same content. Age
alone proves nothing. What can't be read as one of the two forms stays and is told once.

What can't be excluded: a KLoROS tool that opened the file before we removed it and locks it after, holds a lock on a
file without a name (its own reaper has the same gap); and a clock set forward makes a living holder look younger than
its file, so that a `gpu_maintenance.lock`, which has no kernel lock behind it, could be taken for a dead one's.

On the quiet path: one listing; a file is opened only when one is there that is not ours.
"""

import fcntl
import json
import os
import stat
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from orchestration.errors import Unwritable
from orchestration.host import process_identity

_NAMES = ("bundles", "direct", "federation", "loop", "notice", "orchestrator", "runner", "slurm", "supervisor", "tokens")
OURS = frozenset(f"{name}.lock" for name in _NAMES)
_SIZE_LIMIT = 64 * 1024  # bytes; the real ones have about 200
_SLACK = timedelta(seconds=2)  # rounding in the kernel's ticks and in the tools' clocks
_PID_LIMIT = 2**22  # PID_MAX_LIMIT of 64-bit kernels, proc(5)


class Holder(NamedTuple):
    """Who wrote a lock file, by its own words. `host` is empty where the form has none: then it is this one."""

    pid: int
    host: str
    noted: datetime  # UTC


class Reaped(NamedTuple):
    """What one pass over `locks/` did. The caller counts `removed` as kind="foreign_lock"."""

    removed: tuple[str, ...]
    unreadable: tuple[str, ...]  # names left alone because nothing is known of their form
    news: tuple[str, ...]  # those among them that were not told before


NOTHING = Reaped((), (), ())


def reap_foreign_locks(locks_dir: str, *, told: Collection[str] = ()) -> Reaped:
    """Remove the lock files of dead KLoROS processes. `told` are the unreadable names of the pass before.

    Raises: Unwritable when the folder is there and can't be listed.
    """
    try:
        names = [name for name in sorted(os.listdir(locks_dir)) if _is_foreign(name)]
    except FileNotFoundError:
        return NOTHING
    except OSError as fault:
        raise Unwritable(f"{locks_dir} can't be listed: {fault.strerror}", hint=f"ls -ld {locks_dir}") from fault
    if not names:
        return NOTHING
    removed, unreadable = [], []
    for name in names:
        try:
            outcome = _reap(os.path.join(locks_dir, name))
        except OSError:
            outcome = None  # not ours to open or to remove: as good as unreadable
        if outcome is None:
            unreadable.append(name)
        elif outcome:
            removed.append(name)
    return Reaped(tuple(removed), tuple(unreadable), tuple(name for name in unreadable if name not in told))


def parse_holder(content: bytes) -> Holder | None:
    """Read either form; None for anything else."""
    try:
        text = content.decode("utf-8").strip()
        return _parse_json(text) if text.startswith("{") else _parse_text(text)
    except (ValueError, OverflowError, RecursionError):
        return None


def _is_foreign(name: str) -> bool:
    return name.endswith(".lock") and not name.startswith(".") and name not in OURS


def _parse_json(text: str) -> Holder | None:
    record = json.loads(text)
    pid, host, started = (record.get(key) for key in ("pid", "hostname", "started_at"))
    if type(pid) is not int or not isinstance(host, str) or not host or type(started) not in (int, float):
        return None
    return _holder(pid, host, float(started))


def _parse_text(text: str) -> Holder | None:
    """Read `holder:pid:time`. KLoROS reads the first three parts and ignores more; so do we."""
    parts = text.split(":")
    if len(parts) < 3 or "\n" in text or not parts[1].isascii() or not parts[1].isdigit():
        return None
    return _holder(int(parts[1]), "", float(parts[2]))


def _holder(pid: int, host: str, seconds: float) -> Holder | None:
    if not 0 < pid <= _PID_LIMIT or seconds <= 0:
        return None
    return Holder(pid, host, datetime.fromtimestamp(seconds, UTC))


def _reap(path: str) -> bool | None:
    """Judge one file, remove it if its holder is dead: True removed, False left, None not readable as a lock file."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return False
    try:
        content = _content(descriptor)
        holder = None if content is None else parse_holder(content)
        if holder is None:
            return None
        if holder.host not in ("", os.uname().nodename) or not _is_gone(holder):
            return False
        return _remove(path, descriptor, content)
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> bytes | None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > _SIZE_LIMIT:
        return None
    return os.pread(descriptor, _SIZE_LIMIT, 0)


def _remove(path: str, descriptor: int, content: bytes | None) -> bool:
    """Unlink the file provided nobody locks it and it is still the one that was judged."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a record lock is a kernel lock too
    except OSError:
        return False
    try:
        same = os.path.samestat(os.lstat(path), os.fstat(descriptor)) and _content(descriptor) == content
        if same:
            os.unlink(path)
    except FileNotFoundError:
        return False
    return same


def _is_gone(holder: Holder) -> bool:
    """Tell whether the process that wrote the file can't be running any more.

    A file from before this boot needs no rule of its own: whoever has its pid now started later.
    """
    return not process_identity.was_running_at(holder.pid, holder.noted, slack=_SLACK) and not _is_hidden(holder.pid)


def _is_hidden(pid: int) -> bool:
    """Tell whether a process is there that /proc does not show; then nothing is known of its start.

    `ProtectProc=invisible` hides the processes of other users (systemd.exec(5)), signal 0 still reaches them (kill(2)).
    A zombie is shown, and is dead.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not os.path.exists(f"/proc/{pid}")
