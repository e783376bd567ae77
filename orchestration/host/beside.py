"""Since when a systemd unit beside ours runs, told by its control group: without D-Bus, which a confined unit may not
reach.

Services of one manager lie beside each other in one slice unless they say otherwise (systemd.slice(5)). systemd makes a
group when a unit starts and removes it when the unit has ended, so the folder is as old as the start. The processes in it
can't be asked: under ProtectProc=invisible those in a user namespace of their own (PrivateUsers=) are hidden even from
their own user. Where systemd does not run us, or with cgroup v1, nothing is known.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

_MOUNT = "/sys/fs/cgroup"


def running_since(unit: str, *, own: str | None = None, mount: str = _MOUNT) -> datetime | None:
    """Return when a unit that has a process was started (aware UTC, not too early); None when it has none.

    Args:
        own: our own group below `mount`; found out when it is not given.
    """
    group = _own() if own is None else own
    if not group:
        return None
    folder = os.path.join(mount + os.path.dirname(group), unit)
    try:
        with open(os.path.join(folder, "cgroup.procs"), encoding="ascii") as file:
            runs = bool(file.read().strip())
        return datetime.fromtimestamp(os.stat(folder).st_mtime, UTC) if runs else None
    except OSError:
        return None


def _own() -> str:
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            return next((line[3:].strip() for line in file if line.startswith("0::")), "")
    except OSError:
        return ""
