"""Small things by which files are told apart, light enough for a quiet tick."""

import os
import stat
import time

SETTLED = 1.0  # seconds; a change time this old can't be that of a later change as well


def mark_of(path: str) -> str | None:
    """Return what tells a file from every other that had, or will have, its name; None when it is gone.

    Of one that changed just now it is another one each time, for it may change again without any other sign.
    """
    try:
        found = [os.lstat(path)]
    except OSError:
        return None
    if stat.S_ISLNK(found[0].st_mode):
        try:
            found.append(os.stat(path))
        except OSError:
            found.append(found[0])
    now = time.time()
    young = f"@{now}" if any(abs(now - max(one.st_mtime, one.st_ctime)) < SETTLED for one in found) else ""
    return " ".join(f"{one.st_ino}.{one.st_size}.{one.st_mtime_ns}.{one.st_ctime_ns}" for one in found) + young


def changed_at(folder: str) -> int:
    """Return a folder's change time in nanoseconds; 0 when there is none."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def sha_of(data: bytes) -> str:
    """Return a content's SHA-256, in hex."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def base64_of(data: bytes) -> str:
    """Write bytes as text."""
    import base64

    return base64.b64encode(data).decode()
