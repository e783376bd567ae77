"""On which kind of file system a path lies, as this host has mounted it (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
from typing import Final

_OF_THIS_HOST: Final = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "tmpfs", "overlay", "vfat", "ramfs", "squashfs")
)


def kind_of(path: str, *, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Return the type of the file system on which a path lies, or will lie; empty when nobody can tell."""
    wanted, found = os.path.realpath(path), ("", "")
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                point = before.split(" ")[4].encode("latin-1", "backslashreplace").decode("unicode_escape")  # "\\040"
                is_above = wanted == point or wanted.startswith(point.rstrip("/") + "/")
                if is_above and len(point) >= len(found[0]):  # the last mount of a point is the one that is seen
                    found = (point, after.split(" ")[0])
    except (OSError, IndexError, UnicodeError):
        return ""
    return found[1]


def is_local(kind: str) -> bool:
    """Tell whether such a file system is one host's own; of an unknown one nobody says so."""
    return kind in _OF_THIS_HOST
