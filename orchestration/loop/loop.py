"""The continuous loop: decide and enqueue like a tick, let the cycle runner run it, record, wait, again.

Read `Loop.run` and `Loop._iterate`. An iteration is a cycle of the job `loop` in the same store, run in this process by
the same runner, under the same locks; so ticks and loops never run two cycles at once. `locks/loop.lock` keeps a second
loop away. What a killed loop left half-done is ended first: its cycle tells how it went, and what nobody can know is `lost`.
"""

from __future__ import annotations

import getpass
import os
import select
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from orchestration.cycles import artifacts, ledger
from orchestration.cycles.backoff import Backoff
from orchestration.cycles.cycle import FINISHED, Cause, Cycle, CycleEvent, CycleNumber, CycleState, JobName, Origin, Result
from orchestration.cycles.job import Job
from orchestration.cycles.runner import Runner
from orchestration.errors import KlorosError, LockHeld, StoreUnreachable, Usage
from orchestration.exits import Exit
from orchestration.host import clock, notify, process
from orchestration.host.journal import Event, Priority, log
from orchestration.host.lock import FileLock
from orchestration.loop import ledger as iterations
from orchestration.loop import records
from orchestration.loop.archives import Archives
from orchestration.loop.iteration import FAILURES, STALE_AFTER, Plan, Row, Status, status_of
from orchestration.loop.logs import prune
from orchestration.loop.place import place_of
from orchestration.loop.prerequisites import Prerequisites, tail
from orchestration.loop.schedule import Pace, goals_of, next_goal, words_of
from orchestration.store.instants import to_text
from orchestration.tick.gate import gate
from orchestration.tick.observe import MAINTENANCE_FILE
from orchestration.tick.reap import reap
from orchestration.tick.settle import settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestration.host.notify import Notifier
    from orchestration.loop.options import Options
    from orchestration.loop.screen import Screen
    from orchestration.loop.stopping import Stopping
    from orchestration.tick.kernel import Kernel

_NAP_MS: Final = 100
_HELD_NAP_MS: Final = 500  # between two looks that take the tick's lock for a moment
_TAIL: Final = 2000
_TOKEN: Final = process.TOKEN


class Loop:
    """One call of the loop; `run` is its whole life."""

    def __init__(
        self,
        kernel: Kernel,
        options: Options,
        *,
        environ: Mapping[str, str],
        stopping: Stopping,
        screen: Screen,
        notifier: Notifier,
    ) -> None:
        """Take the loop's world: the store and locks, what to do, and where to hear and to tell."""
        self._kernel, self._db = kernel, kernel.db
        self._options, self._settings = options, options.settings.loop
        self._environ = environ
        self._stopping, self._screen, self._notifier = stopping, screen, notifier
        self._place = place_of(self._settings)
        self._archives = Archives(self._place.archives)
        self._working: tuple[int, str, float] | None = None  # iteration, what, since
        self._prerequisites = Prerequisites(
            self._settings,
            cwd=self._place.cwd,
            environ=environ,
            output=kernel.path("loop", "prerequisites.log"),
            should_stop=lambda: self._asked() is not None,
        )
        self._runner = Runner(
            options.settings,
            kernel.db,
            lock=kernel.runner_lock,
            environ=environ,
            start=lambda _entry: None,  # what follows a cycle is done here, and by any tick
            stopped=self._asked,
        )
        settings = self._settings
        self._pace = Pace(settings.sleep, Backoff(settings.backoff), settings.max_backoff, settings.jitter, settings.seed)

    def run(self) -> Exit:
        """Loop until there is a reason to end.

        Raises:
            LockHeld: another loop works on this state folder.
            StoreUnreachable, Unwritable: the next loop goes on where this one was.
        """
        with FileLock(self._kernel.path("locks", "loop.lock")).held("loop"), self._stopping.listening():
            self._start()
            try:
                code, why = self._repeat()
            finally:
                self._notifier.tell(notify.STOPPING)
                self._screen.close()
            self._tell(f"ended: {why}")
            log(Event.LOOP_ENDED, why, exit=code)
            return code

    def _start(self) -> None:
        records.make_folder(self._place.log_dir)
        records.sweep(self._place.log_dir)
        records.make_folder(self._kernel.path("loop"))
        self._totals = iterations.totals(self._db)
        for left in iterations.still_open(self._db):
            self._end_left(left)
        records.write_history(self._db)
        self._notifier.tell(notify.READY)
        log(Event.LOOP_STARTED, f"the loop works in {self._place.cwd}", state_dir=self._kernel.settings.state_dir)

    def _repeat(self) -> tuple[Exit, str]:
        """Iterate; return how to exit, and why."""
        due, done = self._left_to_wait(), 0
        while True:
            ended = self._wait(due)
            if ended is not None:
                return ended
            row = self._iterate()
            prune(self._place.log_dir, self._kernel.settings.retention, iteration=row.iteration, now=clock.now())
            done += 1
            failures = iterations.past(self._db).failures_in_a_row
            if row.status in FAILURES and 0 < self._settings.max_failures <= failures:
                return Exit.FAILURE_LIMIT, self._gave_up(failures)
            if self._stopping.asked:
                return Exit.DONE, "asked to stop"
            if not self._settings.continuous and done >= self._settings.iterations:
                return (Exit.FAILED if row.status in FAILURES else Exit.DONE), f"{done} iterations are done"
            due = row.next_run_at

    def _left_to_wait(self) -> datetime | None:
        """Return until when the wait for an earlier loop's failure lasts."""
        past = iterations.past(self._db)
        if past.last_ended_at is None or past.wait_until is None:
            return None
        return self._pace.resumed(past.last_ended_at, past.wait_until, now=clock.now())

    def _gave_up(self, failures: int) -> str:
        why = f"{failures} failures in a row, {self._settings.max_failures} are allowed; see {self._place.log_dir}"
        log(Event.LOOP_FAILED, why, priority=Priority.CRITICAL, failures=failures)
        return why

    # waiting

    def _wait(self, due: datetime | None) -> tuple[Exit, str] | None:
        """Wait until an instant, and while maintenance lasts; return how to exit when there is a reason to, else None."""
        left = timedelta(0) if due is None else due - clock.now()
        until = clock.monotonic() + left.total_seconds()  # by a clock that nobody sets back
        told = ""
        while True:
            if (ended := self._reason_to_end()) is not None:
                return ended
            held = os.path.exists(self._kernel.path(MAINTENANCE_FILE))
            remaining = until - clock.monotonic()
            if remaining <= 0 and not held:
                return None
            what = "maintenance" if held else "waiting"
            if what != told:
                self._tell(what, next_run_at=due)
                told = what
            if due is not None:
                self._screen.waits(due, timedelta(seconds=max(0.0, remaining)))
            self._notifier.tell(notify.ALIVE)
            _nap(_NAP_MS if held else max(1, min(_NAP_MS, int(remaining * 1000) + 1)))

    def _reason_to_end(self) -> tuple[Exit, str] | None:
        if self._stopping.asked:
            return Exit.DONE, "asked to stop"
        if self._place.stop_file and os.path.lexists(self._place.stop_file):
            return Exit.DONE, f"the stop file {self._place.stop_file} exists"
        refused = gate(self._kernel.settings)
        return None if refused is None else (refused[0], refused[2])

    # one iteration

    def _iterate(self) -> Row:
        begun = self._begin()
        self._work(begun.iteration, "prerequisites")
        self._tell("prerequisites", begun)
        found = self._prerequisites.check(self._variables(begun.plan, begun.iteration) | {_TOKEN: begun.token})
        begun = begun._replace(plan=begun.plan._replace(prerequisites=found))
        if self._asked() is not None:
            return self._end(begun, None, Status.INTERRUPTED, "interrupted before its command")
        failed = [one for one in found if not one.passed]
        if failed:
            said = "\n".join(f"{one.name}: {one.detail}" for one in failed)
            return self._end(begun, None, Status.PREREQ_FAILED, f"prerequisites failed\n{said}")
        begun = begun._replace(plan=begun.plan._replace(known=self._archives.known()))
        queued = self._queue(begun)
        if queued.cycle is None:
            return self._end(queued, None, Status.INTERRUPTED, "interrupted before its command")
        self._work(queued.iteration, "running")
        self._tell("running", queued)
        return self._end_of_cycle(queued, self._see_through(queued.cycle))

    def _begin(self) -> iterations.Open:
        goals = self._goals()
        now = clock.now()
        settings = self._settings
        log_path = records.claim_log(self._place.log_dir, now)
        cap_writes = settings.cap_writes if settings.cap_writes >= 0 else None
        plan = Plan(settings.mode, "", cap_writes, self._place.archives, log_path)
        token = os.urandom(16).hex()
        with self._db.transaction():
            begun = iterations.begin(self._db, token=token, now=now, plan=plan, history_path=self._place.history_path)
            goal = next_goal(goals, iteration=begun.iteration, order=settings.goal_order, seed=settings.seed)
            begun = begun._replace(plan=plan._replace(goal=goal))
            iterations.plan(self._db, begun)
        return begun

    def _goals(self) -> tuple[str, ...]:
        path = self._place.goal_file
        if not path:
            return (self._settings.goal,)
        try:
            with open(path, encoding="utf-8") as file:
                goals = goals_of(file.read())
        except (OSError, ValueError) as error:
            raise Usage(f"{path}: the goals can't be read: {error}", hint="correct goal_file (--goal-file)") from error
        if not goals:
            raise Usage(f"{path} has no goal in it", hint="write one goal a line")
        return goals

    def _variables(self, plan: Plan, iteration: int) -> dict[str, str]:
        """Return what a command of this iteration is told."""
        told = {
            "RUN_CYCLE_CONSENT": "unattended",
            "RUN_CYCLE_ITERATION": str(iteration),
            "RUN_CYCLE_MODE": plan.mode,
            "RUN_CYCLE_GOAL": plan.goal,
        }
        if plan.cap_writes is not None:
            told["RUN_CYCLE_CAP_WRITES"] = str(plan.cap_writes)
        if self._settings.sandbox_reset:
            told["RUN_CYCLE_SANDBOX_RESET"] = "1"
        return told

    def _queue(self, begun: iterations.Open) -> iterations.Open:
        """Queue the iteration's cycle as soon as no other is exclusive; without one when asked to stop meanwhile."""
        words = words_of(self._settings.command, mode=begun.plan.mode, goal=begun.plan.goal)
        job = Job(JobName.LOOP, words, self._place.cwd, self._settings.timeout)
        variables = tuple(self._variables(begun.plan, begun.iteration).items())
        origin = Origin(Cause.LOOP, f"loop-{begun.iteration}", topic=begun.plan.goal, variables=variables)
        held = False
        while self._asked() is None:
            with self._locked() as ours:
                if ours and not self._others():
                    self._consent(begun, words)
                    with self._db.transaction():
                        number = ledger.enqueue(self._db, job=job, origin=origin, token=begun.token, now=clock.now())
                        queued = begun._replace(cycle=number)
                        iterations.plan(self._db, queued)
                    return queued
            if not held:
                self._tell("held by another cycle", begun)
                held = True
            self._run_queued()
            _nap(_HELD_NAP_MS)
        return begun

    def _others(self) -> bool:
        """Settle what has ended, and tell whether a cycle is left that keeps ours from starting. Under the tick's lock."""
        reap(self._kernel)
        settle(self._kernel)
        return bool(ledger.exclusive(self._db))

    def _consent(self, begun: iterations.Open, words: tuple[str, ...]) -> None:
        consent = records.consent_of(
            words,
            who=_user(),
            source=self._options.sources.get("command", "the default"),
            now=clock.now(),
            cap_writes=begun.plan.cap_writes,
            iteration=begun.iteration,
        )
        records.note_consent(self._kernel.settings.state_dir, consent)

    def _see_through(self, number: CycleNumber) -> Cycle:
        """Run the queue until this cycle has ended; another runner may have taken it."""
        while True:
            self._run_queued()
            cycle = ledger.get(self._db, number)
            if cycle is None:
                raise StoreUnreachable(f"cycle {number} has gone from the store", hint="was the store replaced meanwhile?")
            if cycle.state in FINISHED:
                return cycle
            if self._asked() is not None:
                ledger.ask_cancel(self._db, number, now=clock.now())
                self._withdraw(cycle)
            with self._locked() as ours:
                if ours:
                    reap(self._kernel)
            _nap(_HELD_NAP_MS)

    def _run_queued(self) -> None:
        """Run what is queued, unless another runner is at it."""
        if self._kernel.runner_lock.is_free():
            self._runner.run()

    def _withdraw(self, cycle: Cycle) -> None:
        """Cancel a cycle that is still queued."""
        if cycle.state is CycleState.QUEUED:
            with self._db.transaction():
                ledger.finish(self._db, cycle, CycleEvent.CANCEL, Result(reason="the loop was stopped"), now=clock.now())

    # the end of an iteration

    def _end_left(self, left: iterations.Open) -> None:
        """End what a killed loop has left."""
        cycle = None if left.cycle is None else ledger.get(self._db, left.cycle)
        if cycle is None:
            process.kill_marked(left.token)  # its prerequisites
            self._end(left, None, Status.LOST, "the loop was killed before the command")
            return
        with self._locked() as ours:
            if ours:
                reap(self._kernel)  # records `lost`, unless a runner of somebody else's has it
        self._withdraw(cycle)
        self._end_of_cycle(left, self._see_through(cycle.cycle))

    def _end_of_cycle(self, begun: iterations.Open, cycle: Cycle) -> Row:
        pattern = begun.plan.archives
        archives = self._archives if pattern == self._place.archives else Archives(pattern)
        path, new = archives.newest(begun.plan.known)
        status = status_of(cycle, archive_new=new, archive_expected=bool(pattern))
        reason = "" if cycle.result is None else cycle.result.reason
        return self._end(begun, cycle, status, reason, archive=path, new=new if pattern else None)

    def _end(
        self,
        begun: iterations.Open,
        cycle: Cycle | None,
        status: Status,
        reason: str,
        *,
        archive: str | None = None,
        new: bool | None = None,
    ) -> Row:
        row = self._row(begun, cycle, status, reason)._replace(archive_created=bool(new), archive_path=archive)
        with self._locked() as ours:
            if ours and cycle is not None:
                settle(self._kernel)
        with self._db.transaction():
            iterations.end(self._db, row, archive_new=new)
        records.write_history(self._db)
        self._totals[status] += 1
        self._working = None
        self._tell("ended", begun, next_run_at=row.next_run_at)
        self._screen.ended(iterations.as_json(row))
        self._report(row, reason)
        return row

    def _row(self, begun: iterations.Open, cycle: Cycle | None, status: Status, reason: str) -> Row:
        plan, now = begun.plan, clock.now()
        output = None if cycle is None else artifacts.output_path(self._folder(cycle))
        result = None if cycle is None else cycle.result
        ran = result is not None and (result.exit_code is not None or result.signal is not None)
        records.fill_log(plan.log_path, output=output, otherwise="" if ran else reason)
        return Row(
            timestamp=now,
            started_at=begun.started_at,
            ended_at=now,
            duration_seconds=round(max(0.0, (now - begun.started_at).total_seconds()), 3),
            iteration=begun.iteration,
            mode=plan.mode,
            goal=plan.goal,
            status=status,
            return_code=None if result is None else result.exit_code,
            signal=None if result is None else result.signal,
            prerequisites=plan.prerequisites,
            archive_created=False,
            archive_path=None,
            stderr_tail=tail(plan.log_path, _TAIL),
            log_path=plan.log_path,
            cycle=None if cycle is None else cycle.cycle,
            cap_writes=plan.cap_writes,
            next_run_at=now + self._pause(begun.iteration, status),
        )

    def _folder(self, cycle: Cycle) -> str:
        return artifacts.cycle_dir(self._kernel.settings.cycles_dir, cycle.cycle)

    def _pause(self, iteration: int, status: Status) -> timedelta:
        failures = iterations.past(self._db).failures_in_a_row + 1 if status in FAILURES else 0
        return self._pace.after(failures, iteration=iteration)

    def _report(self, row: Row, reason: str) -> None:
        """Tell the journal and the metrics; neither is a reason to fail."""
        failed = row.status in FAILURES
        message = f"iteration {row.iteration} {row.status}{f': {reason}' if failed else ''}"
        priority = Priority.WARNING if failed else Priority.INFO
        log(Event.LOOP_ITERATED, message, priority=priority, iteration=row.iteration, status=row.status, cycle=row.cycle)
        stale = iterations.past(self._db).without_archive
        if stale >= STALE_AFTER and row.cycle is not None:
            told = f"no new archive in {stale} iterations; the newest is {row.archive_path or 'none'}"
            log(Event.LOOP_STALE, told, priority=Priority.CRITICAL, iterations=stale)
        try:
            self._kernel.publish()
        except KlorosError as error:
            log(Event.LOOP_ITERATED, f"the metrics are not current: {error.message}", priority=Priority.WARNING)

    # telling

    def _asked(self) -> Any:
        """Say that we live, and return the signal by which what runs is to be cancelled, or None."""
        self._notifier.tell(notify.ALIVE)
        if self._working is not None:
            iteration, what, since = self._working
            elapsed = timedelta(seconds=clock.monotonic() - since)
            self._screen.runs(iteration, what, elapsed, self._settings.timeout)
        return self._stopping.cancels()

    def _work(self, iteration: int, what: str) -> None:
        self._working = (iteration, what, clock.monotonic())

    def _tell(self, state: str, begun: iterations.Open | None = None, *, next_run_at: datetime | None = None) -> None:
        """Bring `latest.json` up to now."""
        past = iterations.past(self._db)
        document = {
            "schema": "v1",
            "state": state,
            "updated_at": to_text(clock.now()),
            "pid": os.getpid(),
            "current": None if begun is None else self._current(begun),
            "next_run_at": None if next_run_at is None else to_text(next_run_at),
            "failures_in_a_row": past.failures_in_a_row,
            "without_archive": past.without_archive,
            "stale": past.without_archive >= STALE_AFTER,
            "last": iterations.last_line(self._db),
            "totals": self._totals,
        }
        records.write_latest(self._place.log_dir, document)

    def _current(self, begun: iterations.Open) -> dict[str, object]:
        return {
            "iteration": begun.iteration,
            "cycle": begun.cycle,
            "mode": begun.plan.mode,
            "goal": begun.plan.goal,
            "started_at": to_text(begun.started_at),
            "timeout_seconds": self._settings.timeout.total_seconds(),
            "log_path": begun.plan.log_path,
        }

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the tick's lock if it is free now; a tick has it for milliseconds."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._kernel.lock.held("loop"))
            except LockHeld:
                yield False
                return
            yield True


def _nap(milliseconds: int) -> None:
    select.poll().poll(milliseconds)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
