"""All processes that descend from one process: found in /proc, frozen, killed to the last.

Owns the walk over /proc and the killing; refuses to know why a tree must end. A process that calls setsid,
forks twice, ignores TERM or clears its environment is still found, because who calls here is (or asks for) a
child subreaper: an orphan's new parent is the nearest living ancestor with that mark (PR_SET_CHILD_SUBREAPER,
prctl(2)), so nothing leaves the tree.

A tree that keeps forking is frozen before it is killed: SIGSTOP, first to whole process groups, which the
kernel does in one step (a fork in progress sees the pending signal and starts over), then to each process,
again and again until a walk finds nobody new; then SIGKILL to all.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37
_FREEZE_PASSES: Final = 50  # a tree that forks faster than we walk is killed in rounds instead
_libc: Final = ctypes.CDLL(None, use_errno=True)  # loaded here, so that a forked child needs to load nothing


class Process(NamedTuple):
    """One line of /proc/<pid>/stat: `state` is the kernel's letter, `group` the process group."""

    pid: int
    parent: int
    group: int
    state: str

    @property
    def runs(self) -> bool:
        """Say whether it still runs, rather than waiting as a zombie to be collected."""
        return self.state not in "ZXx"


def all_processes() -> list[Process]:
    """List every process that /proc shows, zombies included."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split(None, 3)
                found.append(Process(int(name), int(fields[1]), int(fields[2]), fields[0].decode()))
    return found


def descendants(roots: Iterable[int], *, spare: Collection[int] = ()) -> list[Process]:
    """List all that descend from the pids `roots`, without these, and without `spare` and theirs."""
    children: dict[int, list[Process]] = {}
    for process in all_processes():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    ahead = list(roots)
    while ahead:
        below = [child for child in children.pop(ahead.pop(), ()) if child.pid not in spare]
        found += below
        ahead += [child.pid for child in below]
    return found


def terminate(processes: Iterable[Process]) -> None:
    """Ask each to end (SIGTERM), and wake those that are stopped so that they can."""
    for process in processes:
        send(process.pid, signal.SIGTERM)
        send(process.pid, signal.SIGCONT)


def freeze_and_kill(find: Callable[[], list[Process]]) -> set[int]:
    """Freeze all that `find` finds until it finds nobody new, then SIGKILL them; one round of it.

    Returns:
        The pids that we may not signal (another user's, through a set-uid program).
    """
    frozen: set[int] = set()
    refused: set[int] = set()
    own_group = os.getpgrp()
    for _ in range(_FREEZE_PASSES):
        fresh = [process for process in find() if process.pid not in frozen]
        if not fresh:
            break
        for group in {process.group for process in fresh} - {own_group, 0, 1}:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGSTOP)
        for process in fresh:
            frozen.add(process.pid)
            if not send(process.pid, signal.SIGSTOP):
                refused.add(process.pid)
    for pid in frozen - refused:
        send(pid, signal.SIGKILL)
    return refused


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal to one process; gone already is fine. False when we are not allowed to."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def become_subreaper(wanted: bool = True) -> bool:
    """Make this process the new parent of orphans below it (or no longer); say whether it was that before."""
    before = ctypes.c_int(0)
    _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    return bool(before.value)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; at once if that is so already."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
