"""Since when a systemd unit beside ours runs, told by its control group: without D-Bus, which a confined unit may not reach.

Services of one manager lie beside each other in one slice unless they say otherwise (systemd.slice(5)). Where systemd does not
run us, or with cgroup v1, nothing is known.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

from orchestration.host.process_identity import start_time

_MOUNT = "/sys/fs/cgroup"


def running_since(unit: str, *, own: str | None = None, mount: str = _MOUNT) -> datetime | None:
    """Return when the oldest living process of a unit began (aware UTC); None when it has none that we may see.

    Args:
        own: our own group below `mount`; found out when it is not given.
    """
    group = _own() if own is None else own
    if not group:
        return None
    try:
        with open(os.path.join(mount + os.path.dirname(group), unit, "cgroup.procs"), encoding="ascii") as file:
            starts = [start_time(int(pid)) for pid in file.read().split()]
    except (OSError, ValueError):
        return None
    began = min((ticks for ticks in starts if ticks is not None), default=None)
    if began is None:
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")
    return datetime.now(UTC) - timedelta(seconds=age)


def _own() -> str:
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            return next((line[3:].strip() for line in file if line.startswith("0::")), "")
    except OSError:
        return ""
