"""A job that Slurm has put back into its queue while the record of its end is on its way: a fake for Slurm's commands."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from orchestration import configuration
from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cause, CycleState, Executor, JobName, Origin
from orchestration.cycles.job import Job
from orchestration.cycles.slurm import jobs, step
from orchestration.cycles.slurm.commands import Slurm
from orchestration.cycles.slurm.executor import SlurmExecutor
from orchestration.cycles.slurm.states import Seen
from orchestration.host import clock
from orchestration.store.sqlite import SqliteDatabase

NUMBER = 7


class Requeued:
    """Slurm, in which the one job waits once more."""

    def __init__(self) -> None:
        self.cancelled: list[int] = []

    def job(self, job_id: int) -> Seen:
        return Seen(job_id, "PENDING", restarts=1)

    def cancel(self, job_id: int) -> None:
        self.cancelled.append(job_id)


def test_the_record_of_its_end_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"KLR_STATE_DIR": str(tmp_path), "KLR_CONFIG": "/dev/null", "KLR_SLURM_LAG": "30s"}
    settings, db, slurm, now = (
        configuration.load(variables),
        SqliteDatabase(str(tmp_path / "kloros.db")),
        Requeued(),
        clock.now(),
    )
    job = Job(JobName.DREAM, ("true",), "", timedelta(minutes=30), Executor.SLURM, ())
    with db.transaction():
        number = ledger.enqueue(db, job=job, origin=Origin(Cause.PROMOTIONS, "tick-1"), token="t", now=now)
        cycle = ledger.claim(db, number, runner="{}", now=now)
    assert cycle is not None
    jobs.note(db, jobs.SlurmJob(number, NUMBER, now, "RUNNING"))
    runs = SlurmExecutor(settings, db, slurm=cast("Slurm", slurm), environ={}, start=lambda _: None)
    spool = Path(runs._spool(cycle))
    spool.mkdir(parents=True)
    (spool / step.BEGAN).write_text(json.dumps({"SLURM_JOB_ID": f"{NUMBER}"}))

    def state() -> CycleState:
        runs.look()
        found = ledger.get(db, number)
        assert found is not None
        return found.state

    assert state() is CycleState.RUNNING
    assert jobs.get(db, number).reason == "Slurm put its job back into its queue; the record of its end is not here yet"
    assert slurm.cancelled == []
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(seconds=31))
    assert state() is CycleState.LOST
    assert slurm.cancelled == [NUMBER]
    db.close()
