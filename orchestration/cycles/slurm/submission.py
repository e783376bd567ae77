"""What Slurm is given of a cycle: a batch script in a folder of its own, and the options of sbatch(1).

The folder lies in `cycles_dir`, which hosts and nodes share. In it are the order for `step.py`, what that records, and the
log of the batch script.
"""

from __future__ import annotations

import math
import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestration.cycles import artifacts
from orchestration.cycles.cycle import Cycle, JobName, folder_name
from orchestration.cycles.slurm import step
from orchestration.host import files

if TYPE_CHECKING:
    from orchestration.cycles.course import Course
    from orchestration.settings import Needs, Settings

_SPOOL: Final = ".slurm"
"""Folder in `cycles_dir` for what we and a step tell each other; no part of any cycle."""


def spool(settings: Settings, cycle: Cycle) -> str:
    """Return the folder of a cycle that Slurm runs."""
    return os.path.join(settings.cycles_dir, _SPOOL, f"{cycle.cycle:05d}")


def comment(cycle: Cycle) -> str:
    """Name a cycle in Slurm: its number for people, its token so that no other's is taken for it."""
    return f"kloros:{cycle.cycle}:{cycle.token}"


def prepare(settings: Settings, course: Course, cycle: Cycle) -> str:
    """Prepare the cycle, once, and lay down its order; return the path of the batch script."""
    own = spool(settings, cycle)
    script = os.path.join(own, "script")
    if not os.path.exists(script):
        folder, env = course.prepare(cycle)
        limits = settings.cycles
        order = step.Order(
            argv=cycle.command,
            env=env,
            cwd=cycle.working_dir or folder,
            output=artifacts.output_path(folder),
            output_limit=limits.log_limit_bytes,
            timeout=cycle.timeout.total_seconds(),
            grace=limits.term_grace.total_seconds(),
        )
        step.give(own, order)
        python = settings.slurm.python or sys.executable
        text = f'#!/bin/sh\nexec "{python}" -P -m {step.__name__} "{own}"\n'
        files.replace(script, text.encode(), 0o700)
    return script


def options(settings: Settings, cycle: Cycle) -> list[str]:
    """Say how sbatch is to take it: under which name, for how long at most, with what the job needs."""
    needs = _needs(settings, cycle)
    own = spool(settings, cycle)
    options = {
        "job-name": folder_name(cycle.cycle),
        "comment": comment(cycle),
        "output": os.path.join(own, "log"),
        "open-mode": "append",
        "chdir": own,
        "export": "PATH",
        "nodes": 1,
        "ntasks": 1,
        "time": math.ceil((needs.time or longest(settings, cycle)) / timedelta(minutes=1)),
        "partition": needs.partition,
        "nodelist": needs.hosts,
        "cpus-per-task": needs.cpus,
        "mem": needs.memory,
        "gpus": needs.gpus,
    }
    # A cycle is run once: whether it is tried again is for the tick to decide.
    return ["--no-requeue", *(f"--{name}={value}" for name, value in options.items() if value), *needs.options]


def longest(settings: Settings, cycle: Cycle) -> timedelta:
    """Return how long a cycle may take in all, its command's end included."""
    return cycle.timeout + settings.cycles.term_grace + timedelta(minutes=1)


def _needs(settings: Settings, cycle: Cycle) -> Needs:
    return settings.phase.needs if cycle.job is JobName.PHASE else settings.dream.needs
