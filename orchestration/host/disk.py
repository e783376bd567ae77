"""Room on a file system."""

import os
from typing import NamedTuple


class Room(NamedTuple):
    """What is left to everybody on a file system, in bytes, and how many more files fit; None where those aren't counted."""

    free: int
    total: int
    files: int | None


def room(path: str) -> Room:
    """Look how much room there is where a file or folder lies; OSError where that can't be said. See statvfs(3)."""
    found = os.statvfs(path)
    return Room(
        free=found.f_bavail * found.f_frsize,
        total=found.f_blocks * found.f_frsize,
        files=found.f_favail if found.f_files else None,
    )
