"""How busy the host is: pressure (PSI), load for each processor, and GPUs. Reads, changes nothing.

What a host can't measure says nothing: kernels without PSI, hosts without `nvidia-smi`, drivers that don't answer.
Formats: https://docs.kernel.org/accounting/psi.html; `nvidia-smi --help-query-gpu`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

RESOURCES: Final = ("cpu", "memory", "io")
_PRESSURE: Final = "/proc/pressure"
_GPU: Final = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")
_GPU_SECONDS: Final = 2.0


def pressures(folder: str = _PRESSURE) -> dict[str, float]:
    """Return for each resource the share of the last minute, in percent, in which some task waited for it."""
    found = {}
    for resource in RESOURCES:
        try:
            with open(os.path.join(folder, resource), encoding="ascii") as file:
                share = some_avg60(file.read(4096))
        except (OSError, ValueError):
            continue
        if share is not None:
            found[resource] = share
    return found


def some_avg60(text: str) -> float | None:
    """Read `some avg60` out of one file of PSI; None when it is not there.

    Raises:
        ValueError: it is no number.
    """
    for line in text.splitlines():
        kind, *figures = line.split()
        if kind == "some":
            return next((float(value) for key, _, value in (one.partition("=") for one in figures) if key == "avg60"), None)
    return None


def load_each() -> float:
    """Return the load of the last minute for each processor."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def gpu(environ: Mapping[str, str] = os.environ, *, seconds: float = _GPU_SECONDS) -> float | None:
    """Return the utilisation of the busiest GPU in percent; None when nobody can tell, or not within `seconds`."""
    program = shutil.which(_GPU[0], path=environ.get("PATH", os.defpath))
    if program is None:
        return None
    try:
        asked = subprocess.Popen(
            [program, *_GPU[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, close_fds=True
        )
    except OSError:
        return None
    try:
        told, _ = asked.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        if asked.stdout is not None:
            asked.stdout.close()
        asked.kill()  # and no waiting: a process that hangs in a driver can't be ended
        return None
    if asked.returncode:
        return None
    figures = [line.strip() for line in told.decode("ascii", "replace").splitlines()]
    return max((float(figure) for figure in figures if figure.isdigit()), default=None)


def busy(*, max_pressure: float, max_load: float, max_gpu: float) -> str:
    """Say what is above its limit (see the functions above for the units); empty when nothing is."""
    for resource, share in pressures().items():
        if share > max_pressure:
            return f"{share:.0f} % of the last minute something waited for {resource}, the limit is {max_pressure:g} %"
    if load_each() > max_load:
        return f"the load is {load_each():.2f} for each processor, the limit is {max_load:g}"
    return gpu_busy(max_gpu)


def gpu_busy(max_gpu: float, environ: Mapping[str, str] = os.environ) -> str:
    """Say that a GPU is used to more than its limit in percent; empty when none is."""
    used = gpu(environ)
    return f"a GPU is used to {used:.0f} %, the limit is {max_gpu:g} %" if used is not None and used > max_gpu else ""
