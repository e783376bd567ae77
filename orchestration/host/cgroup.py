"""A control group of its own for one command, where systemd has delegated ours to us (cgroup v2).

Owns finding, making, killing and removing it; refuses to know processes. `cgroup.kill` (Linux 5.14) ends
everything in it in one step, whatever forks meanwhile. Only a delegated group may be divided (systemd's
CGROUP_DELEGATION: one writer for each part of the tree); systemd marks it by the extended attribute
`user.delegate` (since 251) or `trusted.delegate`. Everywhere else, and where the unit has
ProtectControlGroups=, this says None, and `process_tree` alone does the work.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

_MOUNT: Final = "/sys/fs/cgroup"


def make(name: str) -> str | None:
    """Make a group below ours; give its path, or None where we have no group to divide."""
    own = _own()
    if own is None:
        return None
    path = os.path.join(own, name)
    try:
        os.mkdir(path)
    except OSError:
        return None
    if not os.path.exists(os.path.join(path, "cgroup.kill")):
        remove(path)
        return None
    return path


def existing(name: str) -> str | None:
    """Give the path of a group made below ours earlier, None when there is none."""
    own = _own()
    path = os.path.join(own, name) if own else ""
    return path if path and os.path.isdir(path) else None


def enter(path: str) -> None:
    """Move this process, with all it will fork, into the group; stay where we are when the kernel refuses."""
    with suppress(OSError):
        _write(path, "cgroup.procs", "0")


def kill(path: str) -> None:
    """Send SIGKILL to everything in the group."""
    with suppress(OSError):
        _write(path, "cgroup.kill", "1")


def remove(path: str) -> None:
    """Remove the empty group."""
    with suppress(OSError):
        os.rmdir(path)


def _own() -> str | None:
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            own = [line[3:].strip() for line in file if line.startswith("0::")]
    except OSError:
        return None
    if not own or own[0] == "/":
        return None
    path = _MOUNT + own[0]
    return path if _delegated(path) and os.access(path, os.W_OK) else None


def _delegated(path: str) -> bool:
    for attribute in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(path, attribute) == b"1":
                return True
    return False


def _write(path: str, name: str, content: str) -> None:
    descriptor = os.open(os.path.join(path, name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, content.encode())
    finally:
        os.close(descriptor)
