"""One entry of `intents/`, opened without trust: never followed, never waited for, never read beyond its limit.

Owns what may be opened and when a file is still being written; refuses to know the queue's rules and the store.
Anything but a regular file (a symbolic link, a FIFO, a folder, a device) is malformed and stays unopened.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from orchestration.errors import Malformed
from orchestration.host import stand_in
from orchestration.intents.document import SIZE_LIMIT, Intent, parse

_JUST_NOW = timedelta(seconds=1)
_CLOCK_SLACK = timedelta(seconds=5)  # how far a tick's `now` may lag behind the file system's clock
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EIO)


class Dropped(NamedTuple):
    """What was found under one name. Either `intent` is there, or `fault` says why not."""

    intent: Intent | None
    fault: str
    content_sha: str  # of the intent's content, else of what could be seen of the entry
    changed: datetime  # UTC, the file system's modification time
    unfinished: bool  # not an intent, but changed just now: its writer may still be at it


def read(folder: str, name: str, now: datetime) -> Dropped | None:
    """Read one entry; None when it is gone. `now` is aware UTC.

    Raises: OSError for a fault that is not the file's, as too many open files.
    """
    taken = take(folder, name, now)
    return None if taken is None else taken[0]


def take(folder: str, name: str, now: datetime) -> tuple[Dropped, bytes] | None:
    """Read one entry as `read` does, and give its very bytes; none of what is no file that can be read."""
    path, changed = os.path.join(folder, name), _instant(0.0)
    try:
        found = os.lstat(path)
        changed = _instant(found.st_mtime)
        if not stat.S_ISREG(found.st_mode):
            if told := stand_in.read(path):
                return Dropped(None, told[1], f"kind:{told[0]}", changed, unfinished=False), b""
            kind = _kind(found.st_mode)
            return Dropped(None, f"{kind}, not a regular file", f"kind:{kind}", changed, unfinished=False), b""
        content = _content(path)
    except FileNotFoundError:
        return None
    except OSError as fault:
        if fault.errno not in _UNREADABLE:
            raise
        return Dropped(None, f"can't be opened: {fault.strerror}", "kind:unreadable", changed, unfinished=False), b""
    return _judge(content, changed, now), content


def _judge(content: bytes, changed: datetime, now: datetime) -> Dropped:
    try:
        intent = parse(content)
    except Malformed as fault:
        recent = -_CLOCK_SLACK <= now - changed <= _JUST_NOW
        sha = f"raw:{hashlib.sha256(content).hexdigest()}"
        return Dropped(None, fault.message, sha, changed, unfinished=recent)
    return Dropped(intent, "", intent.content_sha, changed, unfinished=False)


def _content(path: str) -> bytes:
    """Read at most one byte more than is allowed. O_NONBLOCK: a FIFO that takes the file's place can't hold us."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENXIO, "became something else than a file")
        parts, left = [], SIZE_LIMIT + 1
        while left and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _instant(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(max(seconds, 0.0), UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISLNK, "symbolic link"),
        (stat.S_ISDIR, "folder"),
        (stat.S_ISFIFO, "FIFO"),
        (stat.S_ISSOCK, "socket"),
    )
    return next((name for test, name in kinds if test(mode)), "device")
