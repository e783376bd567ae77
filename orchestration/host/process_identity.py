"""Which process is meant: a pid together with the boot and the start time that make it unique.

A pid alone proves nothing, for it is given out again (design rule 3). Owns what /proc says of a process's
identity; refuses to know why anybody asks.

Source: proc(5). /proc/<pid>/stat field 22 is the start time in clock ticks since boot; field 2 (the name) may
hold spaces and parentheses, so fields are counted from the last `)`.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_DEAD: Final = (b"Z", b"X", b"x")  # a zombie runs nothing: dead, only not yet collected


class ProcessIdentity(NamedTuple):
    """One process and no other: kernel boot id, pid, start time in clock ticks since boot."""

    boot_id: str
    pid: int
    start_time: int


def boot_id() -> str:
    """Give this boot's id (a UUID in text); it changes with every boot and only then."""
    with open(_BOOT_ID, encoding="utf-8") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Give the start of a living process in clock ticks since boot; None when there is no such process.

    A zombie counts as no process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if len(fields) < 20 or fields[0] in _DEAD:
        return None
    return int(fields[19])


def identify(pid: int) -> ProcessIdentity | None:
    """Give the identity of a living process, None when there is none with this pid."""
    ticks = start_time(pid)
    return None if ticks is None else ProcessIdentity(boot_id(), pid, ticks)


def current() -> ProcessIdentity:
    """Give the identity of this process."""
    own = identify(os.getpid())
    assert own is not None, "/proc does not show this very process"
    return own


def is_alive(identity: ProcessIdentity) -> bool:
    """Say whether exactly this process still runs: same boot, same pid, same start time."""
    return start_time(identity.pid) == identity.start_time and boot_id() == identity.boot_id


def was_running_at(pid: int, noted: datetime, *, slack: timedelta = timedelta(seconds=2)) -> bool:
    """Say whether the process with this pid now may be the one somebody noted at the instant `noted`.

    For records that know a pid and a wall-clock time but no start time (KLoROS's own lock files). A process
    that started after the note was written can't be the one in it, and a note from before the boot names a
    dead one. The start is worked out with today's clock: a clock set forward since then makes a living
    process look younger, so no decision may rest on this alone (ask the kernel lock too).

    Args:
        pid: the pid in the note.
        noted: aware instant.
        slack: how much later the process may seem to have started; covers rounding in both.
    """
    ticks = start_time(pid)
    if ticks is None:
        return False
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return datetime.now(UTC) - timedelta(seconds=age) <= noted + slack
