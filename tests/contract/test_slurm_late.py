"""What Slurm tells of a job's end before its record, or its accounts, are here: a fake for Slurm's commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from orchestration import configuration
from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cause, Cycle, CycleState, Executor, JobName, Origin
from orchestration.cycles.job import Job
from orchestration.cycles.slurm import jobs, step
from orchestration.cycles.slurm.commands import Slurm
from orchestration.cycles.slurm.executor import SlurmExecutor
from orchestration.cycles.slurm.states import Seen
from orchestration.host import clock
from orchestration.store.sqlite import SqliteDatabase

NUMBER = 7


class Told:
    """Slurm, which says what it was made to say of the one job."""

    def __init__(self) -> None:
        self.seen = Seen(NUMBER, "RUNNING")
        self.accounted: Seen | None = None
        self.cancelled: list[int] = []

    def job(self, job_id: int) -> Seen:
        return self.seen

    def accounts(self, job_id: int) -> Seen | None:
        return self.accounted

    def cancel(self, job_id: int) -> None:
        self.cancelled.append(job_id)


class Watched:
    """A cycle whose step has begun as that job, and the passes that look after it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        variables = {"KLR_STATE_DIR": str(folder), "KLR_CONFIG": "/dev/null", "KLR_SLURM_LAG": "30s"}
        settings, self.slurm, self.began = configuration.load(variables), Told(), clock.now()
        self.db = SqliteDatabase(str(folder / "kloros.db"))
        self._later: Callable[[timedelta], None] = lambda span: monkeypatch.setattr(clock, "now", lambda: self.began + span)
        job = Job(JobName.DREAM, ("true",), "", timedelta(minutes=30), Executor.SLURM, ())
        origin = Origin(Cause.PROMOTIONS, "tick-1")
        with self.db.transaction():
            self._number = ledger.enqueue(self.db, job=job, origin=origin, token="t", now=self.began)
            ledger.claim(self.db, self._number, runner="{}", now=self.began)
        jobs.note(self.db, jobs.SlurmJob(self._number, NUMBER, self.began, "RUNNING"))
        self._runs = SlurmExecutor(settings, self.db, slurm=cast("Slurm", self.slurm), environ={}, start=lambda _: None)
        spool = Path(self._runs._spool(self.cycle))
        spool.mkdir(parents=True)
        (spool / step.BEGAN).write_text(json.dumps({"SLURM_JOB_ID": f"{NUMBER}"}))

    @property
    def cycle(self) -> Cycle:
        found = ledger.get(self.db, self._number)
        assert found is not None
        return found

    @property
    def waits_for(self) -> str:
        return jobs.get(self.db, self._number).reason

    def after(self, seconds: float) -> CycleState:
        """Do one pass, so many seconds after the beginning."""
        self._later(timedelta(seconds=seconds))
        self._runs.look()
        return self.cycle.state


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    watched = Watched(tmp_path, monkeypatch)
    yield watched
    watched.db.close()


def test_the_record_of_the_end_of_a_job_that_was_put_back_into_the_queue_is_waited_for(watched: Watched) -> None:
    watched.slurm.seen = Seen(NUMBER, "PENDING", restarts=1)
    assert watched.after(0) is CycleState.RUNNING
    assert watched.waits_for == "Slurm put its job back into its queue; the record of its end is not here yet"
    assert watched.slurm.cancelled == []
    assert watched.after(31) is CycleState.LOST
    assert watched.slurm.cancelled == [NUMBER]


def test_what_a_killed_job_used_is_waited_for_where_accounting_is_behind(watched: Watched) -> None:
    watched.slurm.seen = Seen(NUMBER, "OUT_OF_MEMORY")
    watched.slurm.accounted = Seen(NUMBER, "RUNNING", is_whole=False)
    assert watched.after(0) is CycleState.RUNNING
    assert watched.after(31) is CycleState.RUNNING
    assert watched.waits_for == "its job has ended; Slurm's accounting has not been told yet what it used"
    watched.slurm.accounted = Seen(NUMBER, "OUT_OF_MEMORY", cpu_seconds=2.5)
    assert watched.after(32) is CycleState.FAILED
    result = watched.cycle.result
    assert result is not None
    assert result.cpu_seconds == 2.5


@pytest.mark.parametrize(
    ("accounted", "seconds"), [(None, 31), (Seen(NUMBER, "RUNNING", is_whole=False), 61)], ids=["none kept", "never told"]
)
def test_accounts_are_not_waited_for_without_end(watched: Watched, accounted: Seen | None, seconds: float) -> None:
    watched.slurm.seen, watched.slurm.accounted = Seen(NUMBER, "OUT_OF_MEMORY"), accounted
    assert watched.after(0) is CycleState.RUNNING
    assert watched.after(seconds - 2) is CycleState.RUNNING
    assert watched.after(seconds) is CycleState.FAILED
