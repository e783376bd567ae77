"""What the store knows of the jobs that Slurm runs for us: one row a cycle."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, cast

from orchestration.cycles.cycle import CycleNumber
from orchestration.store.instants import from_text_or_none, to_text

if TYPE_CHECKING:
    from orchestration.store.port import Database


class SlurmJob(NamedTuple):
    """One row; instants are aware UTC."""

    cycle: CycleNumber
    job_id: int | None = None
    """None until Slurm has taken it, and after it has forgotten it."""
    submitted_at: datetime | None = None
    state: str = ""
    """In Slurm's words, when it was seen last."""
    reason: str = ""
    """Why it waits; or why nobody can tell."""
    nodes: str = ""
    gpus: str = ""
    missed_since: datetime | None = None
    """Since when Slurm, or the step's record, does not say what it should."""


def get(db: Database, cycle: CycleNumber) -> SlurmJob:
    """Return what is known of a cycle's job; nothing yet is a row without an id."""
    for row in db.rows("slurm.get", cycle=cycle):
        return SlurmJob(
            cycle=cycle,
            job_id=cast("int | None", row["job_id"]),
            submitted_at=from_text_or_none(cast("str | None", row["submitted_at"])),
            state=str(row["state"]),
            reason=str(row["reason"]),
            nodes=str(row["nodes"]),
            gpus=str(row["gpus"]),
            missed_since=from_text_or_none(cast("str | None", row["missed_since"])),
        )
    return SlurmJob(cycle)


def note(db: Database, job: SlurmJob) -> None:
    """Note what is known of a job."""
    instants = {name: None if at is None else to_text(at) for name, at in job._asdict().items() if name in _INSTANTS}
    with db.transaction():
        db.run("slurm.note", **{**job._asdict(), **instants})


def told(job: SlurmJob) -> str:
    """Say in a few words where a job stands: its number, and Slurm's state and reason."""
    number = "not given to Slurm yet" if job.job_id is None else f"Slurm job {job.job_id}"
    where = f"on {job.nodes}" if job.nodes else ""
    return ", ".join(filter(None, (number, job.state, where, job.reason)))


_INSTANTS = ("submitted_at", "missed_since")
