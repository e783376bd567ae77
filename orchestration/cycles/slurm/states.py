"""What a state of Slurm means for a cycle. Pure.

Names and meanings: "JOB STATE CODES" in squeue(1) of Slurm 22.05, https://slurm.schedmd.com/squeue.html. A state that is
not in the table, from a later Slurm say, is told as it is and waited for: it says neither success nor failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from orchestration.cycles.cycle import CycleEvent


class Stage(StrEnum):
    """How far a job has come."""

    WAITS = "waits"
    """In Slurm's queue; also again, after a node has failed or somebody more important came."""
    RUNS = "runs"
    ENDED = "ended"
    """Slurm does no more for it. What its command came to is told by the step's own record, if it has left one."""


class Meaning(NamedTuple):
    """What a state means."""

    stage: Stage
    event: CycleEvent | None = None
    """Of a job that has ended: what becomes of the cycle when its step has left no record."""
    words: str = ""


_WAITS: Final = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_RUNS: Final = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT")

MEANINGS: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        **dict.fromkeys(_WAITS, Meaning(Stage.WAITS)),
        **dict.fromkeys(_RUNS, Meaning(Stage.RUNS)),
        "COMPLETED": Meaning(Stage.ENDED, CycleEvent.LOSE, "Slurm says that it is completed, yet its step left no record"),
        "FAILED": Meaning(Stage.ENDED, CycleEvent.FAIL, "Slurm says that its script failed before its command ran"),
        "TIMEOUT": Meaning(Stage.ENDED, CycleEvent.TIME_OUT, "Slurm ended it: its time was over"),
        "DEADLINE": Meaning(Stage.ENDED, CycleEvent.TIME_OUT, "Slurm ended it: its deadline had passed"),
        "CANCELLED": Meaning(Stage.ENDED, CycleEvent.CANCEL, "it was cancelled in Slurm"),
        "REVOKED": Meaning(Stage.ENDED, CycleEvent.CANCEL, "Slurm gave it to another cluster, where we can't follow it"),
        "PREEMPTED": Meaning(Stage.ENDED, CycleEvent.FAIL, "Slurm ended it for a job of higher priority"),
        "OUT_OF_MEMORY": Meaning(Stage.ENDED, CycleEvent.FAIL, "it needed more memory than it had asked for"),
        "NODE_FAIL": Meaning(Stage.ENDED, CycleEvent.LOSE, "its node failed; how far it came is unknown"),
        "BOOT_FAIL": Meaning(Stage.ENDED, CycleEvent.FAIL, "its node did not boot"),
    }
)


def meaning(state: str) -> Meaning:
    """Return what a state means; an unknown one is waited for, in its own words."""
    return MEANINGS.get(state, Meaning(Stage.RUNS, None, f"Slurm tells a state that we don't know: {state}"))


class Seen(NamedTuple):
    """One look at a job; what was not told is empty, 0 or None."""

    job_id: int
    state: str
    reason: str = ""
    """Why it waits or has ended, as Slurm says; `None` of Slurm is empty here."""
    nodes: str = ""
    gpus: str = ""
    """GPUs that it has, as Slurm writes them: `gpu:1`, of accounting `gres/gpu=1`."""
    partition: str = ""
    restarts: int = 0
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    """From accounting only, as the next."""
    peak_bytes: int | None = None
    is_whole: bool = True
    """False while accounting has not been told of the end of all its steps: what it used is still to come."""


def read(line: str) -> Seen | None:
    """Read one line of `scontrol show job --oneliner --detail`; None when it tells of no job."""
    fields = _fields(line)
    if not fields.get("JobId", "").isdigit() or "JobState" not in fields:
        return None
    reason, nodes = fields.get("Reason", ""), fields.get("NodeList", "")
    return Seen(
        job_id=int(fields["JobId"]),
        state=fields["JobState"],
        reason="" if reason == "None" else reason,
        nodes="" if nodes == "(null)" else nodes,
        gpus=_gpus(fields.get("JOB_GRES", "")) or _gpus(fields.get("TRES", "")),
        partition=fields.get("Partition", ""),
        restarts=int(fields["Restarts"]) if fields.get("Restarts", "").isdigit() else 0,
        wall_seconds=seconds(fields.get("RunTime", "")),
    )


ACCOUNTED: Final = ("JobIDRaw", "State", "NodeList", "Partition", "AllocTRES", "ElapsedRaw", "TotalCPU", "MaxRSS")
"""What is asked of accounting, see "Job Accounting Fields" in sacct(1)."""


def read_accounts(text: str, job_id: int) -> Seen | None:
    """Read what `sacct --parsable2` says of a job and its steps, in `ACCOUNTED`; None when it says nothing of it.

    A job's memory is that of its largest step: sacct gives the job's own line none.
    """
    lines = [dict(zip(ACCOUNTED, line.split("|"), strict=False)) for line in text.splitlines()]
    steps = [line for line in lines if line["JobIDRaw"].startswith(f"{job_id}.")]
    for job in lines:
        if job["JobIDRaw"] == str(job_id) and len(job) == len(ACCOUNTED):
            peaks = [peak for step in steps if (peak := _bytes(step.get("MaxRSS", ""))) is not None]
            return Seen(
                job_id,
                _state(job),
                nodes="" if job["NodeList"] == "None assigned" else job["NodeList"],
                gpus=_gpus(job["AllocTRES"]),
                partition=job["Partition"],
                wall_seconds=seconds(job["ElapsedRaw"]),
                cpu_seconds=seconds(job["TotalCPU"]) or None,  # 0 until its steps have told theirs
                peak_bytes=max(peaks, default=None),
                is_whole=bool(steps) and all(meaning(_state(line)).stage is Stage.ENDED for line in (job, *steps)),
            )
    return None


def _state(line: Mapping[str, str]) -> str:
    return line.get("State", "").partition(" ")[0]  # "CANCELLED by 1000"


def comment(line: str) -> str:
    """Return the comment of a job in such a line."""
    return _fields(line).get("Comment", "")


def seconds(told: str) -> float | None:
    """Read a span as Slurm writes it: `[days-][[hours:]minutes:]seconds`; None when it is none."""
    days, dash, rest = told.rpartition("-")
    try:
        total = 0.0
        for part in rest.split(":"):
            total = total * 60 + float(part)
        return total + (int(days) * 86400 if dash else 0)
    except ValueError:
        return None


def _bytes(told: str) -> int | None:
    """Read an amount such as `1024K`; None when it is none, or nothing."""
    number, unit = (told[:-1], told[-1:]) if told[-1:] in "KMGT" else (told, "")
    try:
        return round(float(number) * 1024 ** (" KMGT".index(unit or " "))) or None
    except ValueError:
        return None


def _gpus(resources: str) -> str:
    return ",".join(one for one in resources.split(",") if "gpu" in one)


def _fields(line: str) -> dict[str, str]:
    """Split `Name=value Name=value …`; a value may hold spaces, which then end up in no field: none of ours does."""
    return dict(part.partition("=")[::2] for part in line.split() if "=" in part)
