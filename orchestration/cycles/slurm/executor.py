"""Hands cycles to Slurm, and looks after those that were: one pass, from what Slurm and the shared folder say now.

Owns the order of things where a job says `executor = "slurm"`; `submission.py` says what Slurm is given, `states.py` what
Slurm means, `step.py` runs the command on the node, `cycles/course.py` does what is done for every cycle. Nothing stays
resident: every tick that finds such a cycle starts a runner, which does one pass. Level-triggered: a pass that was missed,
doubled or killed changes nothing.

- A submission that died halfway is found by its comment, which is the cycle's token, and not repeated. Should Slurm have
  forgotten a job that nobody saw begin (a controller killed within seconds of taking it does), it is submitted again: the
  step's own mark keeps its command from being run twice.
- What Slurm or the shared folder does not tell yet is waited for; what they will never tell is recorded as `lost`.
- Slurm out of reach: nothing is decided; the cycle waits where it stands, with that reason.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestration.cycles import judgement, ledger
from orchestration.cycles.course import Course
from orchestration.cycles.cycle import Cycle, CycleEvent, CycleState, Executor, Result
from orchestration.cycles.slurm import endings, jobs, step, submission
from orchestration.cycles.slurm.commands import Slurm, SlurmAway, SlurmRefused
from orchestration.cycles.slurm.jobs import SlurmJob
from orchestration.cycles.slurm.states import Seen, Stage, meaning
from orchestration.errors import KlorosError, LeaseLost, StoreUnreachable
from orchestration.host import clock
from orchestration.host.journal import Event, Priority, log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestration.host.process import Completed
    from orchestration.settings import Settings
    from orchestration.store.port import Database

_LONGEST_LOG: Final = 2000
_ON_REQUEST: Final = "cancelled on request"


def handed_over(db: Database) -> list[Cycle]:
    """Return the cycles that Slurm runs, or is to run, oldest first."""
    return [cycle for cycle in ledger.active(db) if cycle.executor is Executor.SLURM]


class SlurmExecutor:
    """The cycles of one state folder that Slurm runs."""

    def __init__(
        self, settings: Settings, db: Database, *, slurm: Slurm, environ: Mapping[str, str], start: Callable[[str], None]
    ) -> None:
        """Take the settings, the store, Slurm's commands, what commands inherit, and a launcher's verb."""
        self._settings = settings
        self._db = db
        self._slurm = slurm
        self._course = Course(settings, db, environ=environ, is_away=True)
        self._start = start

    def look(self) -> None:
        """Do one pass over every cycle that was handed to Slurm, or is to be.

        Raises:
            StoreUnreachable: nothing is lost by it. LeaseLost: another host leads by now, and looks after them.
        """
        for cycle in handed_over(self._db):
            job = jobs.get(self._db, cycle.cycle)
            try:
                self._look_at(cycle, job)
            except SlurmAway as error:
                self._wait(job, f"Slurm is out of reach: {error.message}")
            except SlurmRefused as error:
                self._wait(job, f"Slurm does not answer as it should: {error.message}")

    def _look_at(self, cycle: Cycle, job: SlurmJob) -> None:
        spool = self._spool(cycle)
        if (ended := step.ended(spool)) is not None:
            self._conclude(cycle, job, ended)
        elif (first := _job_of(step.began(spool))) is not None and job.job_id not in (None, first):
            self._doubled(cycle, job, first)
        elif job.job_id is not None and not os.path.isdir(spool):
            self._not_shared(cycle, job, spool)
        elif job.job_id is None:
            self._hand_over(cycle, job)
        elif (seen := self._slurm.job(job.job_id)) is None:
            self._missed(cycle, job)
        else:
            self._follow(cycle, job, seen)

    # --- handing over ------------------------------------------------------------------------------------------------------

    def _hand_over(self, cycle: Cycle, job: SlurmJob) -> None:
        """Submit a cycle, unless that was done already."""
        began = step.began(self._spool(cycle))
        if began is not None:  # nobody saw it, and Slurm may have forgotten it since
            self._taken(cycle, job, _job_of(began) or 0)
        elif (found := self._slurm.find(submission.comment(cycle))) is not None:
            self._taken(cycle, job, found.job_id)
        elif cycle.cancel_asked_at is not None:
            self._end(cycle, job, judgement.End(CycleEvent.CANCEL, Result(reason="cancelled before it started")))
        else:
            try:
                script = submission.prepare(self._settings, self._course, cycle)
                self._note(job._replace(reason="it is being given to Slurm"))  # fails where another host leads by now
                self._taken(cycle, job, self._slurm.submit(submission.options(self._settings, cycle), script))
            except (SlurmAway, StoreUnreachable, LeaseLost):
                raise
            except SlurmRefused as error:
                refused = Result(reason=f"Slurm refused it: {error.message}", not_started=True)
                self._end(cycle, job, judgement.End(CycleEvent.FAIL, refused))
            except KlorosError as error:
                self._end(cycle, job, self._course.failed(error))

    def _taken(self, cycle: Cycle, job: SlurmJob, job_id: int) -> None:
        self._note(job._replace(job_id=job_id, submitted_at=clock.now(), state="PENDING", reason="", missed_since=None))
        log(Event.CYCLE_STARTED, f"cycle {cycle.cycle} ({cycle.job}) was given to Slurm: job {job_id}", cycle=cycle.cycle)

    def _doubled(self, cycle: Cycle, job: SlurmJob, first: int) -> None:
        """Follow the job that has begun, and end the other: two hosts, leading one after the other, submitted one each."""
        assert job.job_id is not None
        self._slurm.cancel(job.job_id)
        told = f"cycle {cycle.cycle} runs as Slurm job {first}; job {job.job_id} was one too many"
        log(Event.CYCLE_HELD, told, priority=Priority.WARNING, cycle=cycle.cycle)
        self._note(SlurmJob(cycle.cycle, first, clock.now()))

    # --- following ---------------------------------------------------------------------------------------------------------

    def _follow(self, cycle: Cycle, job: SlurmJob, seen: Seen) -> None:
        found, began = meaning(seen.state), step.began(self._spool(cycle))
        job = job._replace(state=seen.state, nodes=seen.nodes or job.nodes, gpus=seen.gpus or job.gpus)
        if found.stage is Stage.ENDED:
            self._ended(cycle, job, seen)
        elif endings.is_requeued(seen, began):
            job = _missing(job)
            if self._is_early(job):  # should Slurm start it meanwhile, its step refuses
                self._wait(job, "Slurm put its job back into its queue; the record of its end is not here yet")
            else:
                self._slurm.cancel(seen.job_id)
                self._end(cycle, job, endings.of_requeued(seen, cancel_asked=cycle.cancel_asked_at is not None), seen)
        elif found.words:
            self._puzzled(cycle, job, seen, found.words)
        else:
            if cycle.cancel_asked_at is not None:
                self._slurm.cancel(seen.job_id)
            elif found.stage is Stage.RUNS and began is not None:
                self._claim(cycle, seen)
            self._note(job._replace(reason=seen.reason, missed_since=None))

    def _puzzled(self, cycle: Cycle, job: SlurmJob, seen: Seen, words: str) -> None:
        """Wait for a state that we don't know to pass; for no longer than the cycle may take."""
        job = _missing(job)
        if cycle.cancel_asked_at is not None:
            self._slurm.cancel(seen.job_id)
        if self._is_early(job, longest=submission.longest(self._settings, cycle)):
            self._wait(job, words)
        else:
            self._slurm.cancel(seen.job_id)
            reason = f"{words}, and it has not left it; it was cancelled there, and how far it came is unknown"
            self._end(cycle, job, judgement.End(CycleEvent.LOSE, Result(reason=reason)), seen)

    def _ended(self, cycle: Cycle, job: SlurmJob, seen: Seen) -> None:
        """Conclude from Slurm alone, once the step's record has had its time to come, and accounting as much again."""
        began = step.began(self._spool(cycle))
        if began is not None or seen.state == "COMPLETED":
            job = _missing(job)
            if self._is_early(job):
                self._wait(job, "its job has ended; the record of its end is not here yet")
                return
        seen = self._with_accounts(seen)
        if began is not None and not seen.is_whole and self._is_early(job, longest=2 * self._settings.slurm.lag):
            self._wait(job, "its job has ended; Slurm's accounting has not been told yet what it used")
            return
        asked = cycle.cancel_asked_at is not None
        self._end(cycle, job, endings.without_record(seen, began=began, cancel_asked=asked, log=self._log(cycle)), seen)

    def _missed(self, cycle: Cycle, job: SlurmJob) -> None:
        """Conclude without Slurm, which knows the job no more: it was never begun, or its end will never be told."""
        job = _missing(job)
        if self._is_early(job):
            self._wait(job, f"Slurm knows nothing of job {job.job_id}, and there is no record of its end")
        elif step.began(self._spool(cycle)) is None:
            self._wait(job._replace(job_id=None, missed_since=None), f"Slurm has forgotten job {job.job_id} before it began")
        else:
            reason = f"Slurm knows nothing of job {job.job_id}; how far it came is unknown"
            self._end(cycle, job, judgement.End(CycleEvent.LOSE, Result(reason=reason)))

    def _not_shared(self, cycle: Cycle, job: SlurmJob, spool: str) -> None:
        """Decide nothing about a job whose records lie where this host does not see them; end it when that is asked for."""
        number = job.job_id or 0
        if cycle.cancel_asked_at is None:
            given = f"the folder with which job {job.job_id} was given to Slurm"
            self._wait(job, f"{spool} is not on this host: is its cycles_dir {given}?")
            return
        self._slurm.cancel(number)
        job, seen = _missing(job), self._slurm.job(number)
        if self._is_early(job) and seen is not None and meaning(seen.state).stage is not Stage.ENDED:
            self._wait(job, "it was cancelled in Slurm")
        else:
            reason = f"{_ON_REQUEST}; what it left is not on this host: {spool}"
            self._end(cycle, job, judgement.End(CycleEvent.CANCEL, Result(reason=reason)), seen)

    def _conclude(self, cycle: Cycle, job: SlurmJob, ended: step.Ended) -> None:
        """Judge what a step has recorded; a command that Slurm has ended carries Slurm's reason."""
        job = job._replace(nodes=job.nodes or ended.slurm.get("SLURMD_NODENAME", ""))  # it may have ended between two looks
        if (completed := ended.completed) is None:
            self._end(cycle, job, judgement.End(CycleEvent.FAIL, Result(reason=ended.failed, not_started=ended.not_started)))
            return
        end = self._course.judge(cycle, completed)
        has_done_its_work = end.event is CycleEvent.SUCCEED and end.result.report_sha is not None
        if has_done_its_work or end.event is CycleEvent.TIME_OUT:
            self._end(cycle, job, end, self._told(job))
        else:
            self._ask_why(cycle, job, end, completed)

    def _ask_why(self, cycle: Cycle, job: SlurmJob, end: judgement.End, completed: Completed) -> None:
        """Ask Slurm whether it was Slurm that ended the command: neither a signal nor an exit code says.

        Not even 0: Slurm's signal may come to a command, which then ends well, before it comes to the step.
        """
        asked, began = cycle.cancel_asked_at is not None, step.began(self._spool(cycle))
        if (endings.was_interrupted(completed) or completed.returncode == 0) and not asked:
            seen = None if job.job_id is None else self._slurm.job(job.job_id)
        else:
            seen = self._told(job)  # the record says enough where Slurm does not
        job = _missing(job)
        is_clear = seen is None or meaning(seen.state).stage is Stage.ENDED or endings.is_requeued(seen, began)
        is_clear = is_clear or (asked and endings.was_interrupted(completed))
        if not is_clear and self._is_early(job):
            self._wait(job, "its command has ended; Slurm has not said yet whether it was for Slurm's sake")
            return
        if seen is not None and endings.is_requeued(seen, began):
            self._slurm.cancel(seen.job_id)
        end = endings.with_record(end, completed, seen, began=began, cancel_asked=asked, log=self._log(cycle))
        self._end(cycle, job, end, seen)

    def _told(self, job: SlurmJob) -> Seen | None:
        """Ask Slurm about a job whose end needs no word of Slurm."""
        with suppress(SlurmAway, SlurmRefused):
            return None if job.job_id is None else self._slurm.job(job.job_id)
        return None

    def _with_accounts(self, seen: Seen) -> Seen:
        """Add what accounting has measured, if any is kept: nobody else has, of a step that was killed."""
        with suppress(SlurmAway, SlurmRefused):
            if (told := self._slurm.accounts(seen.job_id)) is not None:
                gpus = seen.gpus or told.gpus
                return seen._replace(
                    cpu_seconds=told.cpu_seconds, peak_bytes=told.peak_bytes, gpus=gpus, is_whole=told.is_whole
                )
        return seen

    # --- recording ---------------------------------------------------------------------------------------------------------

    def _claim(self, cycle: Cycle, seen: Seen) -> Cycle:
        """Have the cycle running from now on, on its node; one that runs already is left as it is."""
        if cycle.state is not CycleState.QUEUED:
            return cycle
        with self._db.transaction():
            claimed = ledger.claim(self._db, cycle.cycle, runner=_record(seen), now=clock.now())
        return claimed or cycle

    def _end(self, cycle: Cycle, job: SlurmJob, end: judgement.End, seen: Seen | None = None) -> None:
        """Record an end. `seen` is the last look at its job; without one, what was noted of it counts."""
        if seen is not None:
            job = job._replace(state=seen.state, nodes=seen.nodes or job.nodes, gpus=seen.gpus or job.gpus)
        elif job.job_id is not None:
            seen = Seen(job.job_id, job.state)
        if not (cycle.state is CycleState.QUEUED and end.event is CycleEvent.CANCEL):
            last = None if seen is None else seen._replace(nodes=job.nodes, gpus=job.gpus)
            cycle = self._running(cycle, last)
        finished = self._course.record(cycle, end)
        self._note(job._replace(missed_since=None, reason=""))
        try:
            self._course.write_manifest(finished)
            self._start("run_once")
        except KlorosError as error:  # the next tick does either
            log(Event.LAUNCH_FAILED, error.message, priority=Priority.WARNING, cycle=finished.cycle)
        shutil.rmtree(self._spool(cycle), ignore_errors=True)

    def _running(self, cycle: Cycle, seen: Seen | None) -> Cycle:
        """Have the cycle running, with what is known of its job at its end: where it ran, and on what."""
        record = _record(seen)
        with self._db.transaction():
            if cycle.state is CycleState.QUEUED:
                return ledger.claim(self._db, cycle.cycle, runner=record, now=clock.now()) or cycle
            self._db.run("cycles.note_runner", cycle=cycle.cycle, runner=record)
        return cycle

    def _wait(self, job: SlurmJob, reason: str) -> None:
        """Leave the cycle where it stands, and note why; told once for each reason."""
        if job.reason != reason:
            log(Event.CYCLE_HELD, f"cycle {job.cycle} waits: {reason}", priority=Priority.WARNING, cycle=job.cycle)
        self._note(job._replace(reason=reason))

    def _is_early(self, job: SlurmJob, *, longest: timedelta | None = None) -> bool:
        """Tell whether what is missed may still come."""
        return job.missed_since is None or clock.now() - job.missed_since < (longest or self._settings.slurm.lag)

    def _note(self, job: SlurmJob) -> None:
        if job != jobs.get(self._db, job.cycle):
            jobs.note(self._db, job)

    def _spool(self, cycle: Cycle) -> str:
        return submission.spool(self._settings, cycle)

    def _log(self, cycle: Cycle) -> str:
        """Quote the end of what the batch script has said."""
        try:
            with open(os.path.join(self._spool(cycle), "log"), encoding="utf-8", errors="replace") as file:
                said = file.read()[-_LONGEST_LOG:].strip()
        except OSError:
            return ""
        return f": {said}" if said else ""


def _record(seen: Seen | None) -> str:
    """Write who runs a cycle, for its row and its manifest."""
    if seen is None:
        return json.dumps({"host": "", "slurm": None})
    names = ("job_id", "state", "partition", "nodes", "gpus", "restarts")
    return json.dumps({"host": seen.nodes, "slurm": {name: getattr(seen, name) for name in names}})


def _missing(job: SlurmJob) -> SlurmJob:
    """Note since when something is missed; anew when the clock has been set back."""
    now = clock.now()
    return job if job.missed_since is not None and job.missed_since <= now else job._replace(missed_since=now)


def _job_of(began: Mapping[str, object] | None) -> int | None:
    """Return which job a step noted as its own when it began; None when none has begun."""
    told = "" if began is None else str(began.get("SLURM_JOB_ID", ""))
    return int(told) if told.isdigit() else None
