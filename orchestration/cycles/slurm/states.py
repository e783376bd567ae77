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
    """One look at a job."""

    job_id: int
    state: str
    reason: str = ""
    """Why it waits or has ended, as Slurm says; `None` of Slurm is empty here."""
    nodes: str = ""
    gpus: str = ""
    """Trackable resources that are GPUs, such as `gres/gpu=1`."""
    restarts: int = 0


def read(line: str) -> Seen | None:
    """Read one line of `scontrol show job --oneliner`; None when it tells of no job."""
    fields = _fields(line)
    if not fields.get("JobId", "").isdigit() or "JobState" not in fields:
        return None
    reason, nodes = fields.get("Reason", ""), fields.get("NodeList", "")
    held = [one for one in fields.get("TRES", "").split(",") if "gpu" in one]
    return Seen(
        job_id=int(fields["JobId"]),
        state=fields["JobState"],
        reason="" if reason == "None" else reason,
        nodes="" if nodes == "(null)" else nodes,
        gpus=",".join(held),
        restarts=int(fields["Restarts"]) if fields.get("Restarts", "").isdigit() else 0,
    )


def comment(line: str) -> str:
    """Return the comment of a job in such a line."""
    return _fields(line).get("Comment", "")


def _fields(line: str) -> dict[str, str]:
    """Split `Name=value Name=value …`; a value may hold spaces, which then end up in no field: none of ours does."""
    return dict(part.partition("=")[::2] for part in line.split() if "=" in part)
