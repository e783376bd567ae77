"""What this host has in all, for jobs that say what they need. Not what is free: that changes before it could be used."""

from __future__ import annotations

import glob
import os
import re
from typing import NamedTuple

_NVIDIA = "/dev/nvidia[0-9]*"
_AMD = "/sys/class/kfd/kfd/topology/nodes/*/gpu_id"  # 0 for a processor, see the kernel's kfd_topology.c


class Capacity(NamedTuple):
    """Processors that this process may use, bytes of memory, GPUs of NVIDIA and AMD."""

    cpus: int
    memory: int
    gpus: int


def of_this_host() -> Capacity:
    """Look at this host."""
    return Capacity(
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        gpus=sum(re.fullmatch(r"/dev/nvidia\d+", path) is not None for path in glob.glob(_NVIDIA)) + _of_amd(),
    )


def _of_amd() -> int:
    number = 0
    for path in glob.glob(_AMD):
        try:
            with open(path, encoding="ascii") as file:
                number += file.read().strip() not in ("", "0")
        except OSError:
            continue
    return number
