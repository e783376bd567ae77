"""The continuous loop: decide and enqueue like a tick, let the cycle runner run it, record, wait, again.

Read `Loop.run`, `_repeat` and `_iterate`. An iteration is a cycle of the job `loop` in the same store, run in this process
by the same runner, under the same locks; so ticks and loops never run two cycles at once. `locks/loop.lock` keeps a second
loop away. What a killed loop left half-done is ended first: its cycle tells how it went, and what nobody can know is `lost`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from orchestration.cycles import ledger as cycles
from orchestration.exits import Exit
from orchestration.host import clock, process
from orchestration.host.journal import Event, Priority, log
from orchestration.host.lock import FileLock
from orchestration.loop import ledger, records
from orchestration.loop.archives import Archives
from orchestration.loop.ending import Ending
from orchestration.loop.goals import Goals
from orchestration.loop.iteration import Plan, Row
from orchestration.loop.logs import prune
from orchestration.loop.place import place_of
from orchestration.loop.prerequisites import Prerequisites
from orchestration.loop.presence import Presence
from orchestration.loop.products import follow_up
from orchestration.loop.status import FAILURES, Status
from orchestration.loop.waiting import Waiting
from orchestration.loop.work import Work, inherited

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestration.host.notify import Notifier
    from orchestration.loop.options import Options
    from orchestration.loop.screen import Screen
    from orchestration.loop.stopping import Stopping
    from orchestration.tick.kernel import Kernel

_DYING: Final = 30.0  # seconds in which what a killed loop ran is gone; its keeper gives up after 5 on what it may not kill


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
        settings, place = options.settings.loop, place_of(options.settings.loop)
        presence = Presence(
            kernel.db, settings, place.log_dir, stopping=stopping, screen=screen, notifier=notifier
        )  # fmt: skip
        environ = inherited(environ)
        self._kernel, self._db, self._settings, self._place = kernel, kernel.db, settings, place
        self._stopping, self._presence = stopping, presence
        self._archives = Archives(place.archives)
        self._goals = Goals(kernel, settings, place)
        self._waiting = Waiting(kernel, place.stop_file, goals=self._goals, stopping=stopping, presence=presence)
        self._prerequisites = Prerequisites(
            settings,
            cwd=place.cwd,
            environ=environ,
            output=kernel.path("loop", "prerequisites.log"),
            should_stop=lambda: presence.asked() is not None,
        )
        self._work = Work(kernel, options, cwd=place.cwd, environ=environ, goals=self._goals, presence=presence)
        self._done = 0
        self._ending = Ending(
            kernel,
            settings,
            pattern=place.archives,
            archives=self._archives,
            presence=presence,
            exit_after=self._exit_after,
        )

    def run(self) -> Exit:
        """Loop until there is a reason to end.

        Raises:
            LockHeld: another loop works on this state folder, or the command of a killed one can't be ended.
            StoreUnreachable, Unwritable: the next loop goes on where this one was.
        """
        lock = FileLock(self._kernel.path("locks", "loop.lock"))
        # A killed loop's keeper has its lock until the command is gone; a loop started again at once must not fail for it.
        patience = 0.0 if lock.outlived() is None else _DYING
        with lock.held("loop", patience=patience), self._stopping.listening():
            self._start()
            try:
                code, why = self._repeat()
            finally:
                self._presence.ends()
            self._ending.note_next_run(None)
            self._presence.tell(f"ended: {why}")
            log(Event.LOOP_ENDED, why, exit=code)
            return code

    def _repeat(self) -> tuple[Exit, str]:
        """Iterate; return how to exit, and why."""
        due = self._ending.left_to_wait()
        self._ending.note_next_run(due or clock.now())
        while True:
            ended = self._waiting.until(due)
            if ended is not None:
                return ended
            row = self._iterate()
            prune(self._place.log_dir, self._kernel.settings.retention, iteration=row.iteration, now=clock.now())
            follow_up(self._kernel, asked_to_stop=lambda: self._presence.asked() or self._stopping.asked)
            failures = ledger.past(self._db).failures_in_a_row
            code = self._exit_after(row.status, failures)
            if code is Exit.FAILURE_LIMIT:
                return code, self._gave_up(failures)
            if code is not None:
                return code, "asked to stop" if self._stopping.asked else f"{self._done} iterations are done"
            due = row.next_run_at

    def _exit_after(self, status: Status, failures: int) -> Exit | None:
        """Return how the loop ends after an iteration that ended so, or None: another one follows."""
        if not self._done:
            return None  # an earlier loop's
        if status in FAILURES and 0 < self._settings.max_failures <= failures:
            return Exit.FAILURE_LIMIT
        if self._stopping.asked:
            return Exit.DONE
        if not self._settings.continuous and self._done >= self._settings.iterations:
            return Exit.FAILED if status in FAILURES else Exit.DONE
        return None

    def _iterate(self) -> Row:
        """Ask the prerequisites, look at the archives, run the command as a cycle, look again, record it."""
        begun = self._begin()
        self._done += 1
        self._presence.works("prerequisites", begun)
        found = self._prerequisites.check(self._work.told(begun.plan, begun.iteration) | {process.TOKEN: begun.token})
        begun = begun._replace(plan=begun.plan._replace(prerequisites=found))
        if self._presence.asked() is not None:
            return self._ending.without_cycle(begun, Status.INTERRUPTED, "interrupted before its command")
        if failed := [f"{one.name}: {one.detail}" for one in found if not one.passed]:
            return self._ending.without_cycle(begun, Status.PREREQ_FAILED, "\n".join(("prerequisites failed", *failed)))
        begun = begun._replace(plan=begun.plan._replace(known=self._archives.known()))
        number = self._work.queue(begun)
        if isinstance(number, str):
            return self._ending.without_cycle(begun, Status.INTERRUPTED, number)
        begun = begun._replace(cycle=number)
        self._presence.works("running", begun)
        return self._ending.of_cycle(begun, self._work.see_through(number))

    def _begin(self) -> ledger.Open:
        goals, now = self._goals.of_settings(), clock.now()
        cap_writes = self._settings.cap_writes if self._settings.cap_writes >= 0 else None
        log_path = records.claim_log(self._place.log_dir, now)
        plan = Plan(self._settings.mode, "", cap_writes, self._place.archives, log_path)
        token = os.urandom(16).hex()
        with self._db.transaction():
            begun = ledger.begin(self._db, token=token, now=now, plan=plan, history_path=self._place.history_path)
            begun = begun._replace(plan=plan._replace(goal=self._goals.next(goals, begun.iteration)))
            ledger.plan(self._db, begun)
        return begun

    def _gave_up(self, failures: int) -> str:
        why = f"{failures} failures in a row, {self._settings.max_failures} are allowed; see {self._place.log_dir}"
        log(Event.LOOP_FAILED, why, priority=Priority.CRITICAL, failures=failures)
        return why

    # where an earlier loop was

    def _start(self) -> None:
        self._presence.begins()
        records.make_folder(self._place.log_dir)
        records.sweep(self._place.log_dir)
        records.make_folder(self._kernel.path("loop"))
        for left in ledger.still_open(self._db):
            self._end_left(left)
        records.write_history(self._db)
        self._presence.is_ready()
        log(Event.LOOP_STARTED, f"the loop works in {self._place.cwd}", state_dir=self._kernel.settings.state_dir)

    def _end_left(self, left: ledger.Open) -> None:
        """End what a killed loop has left."""
        cycle = None if left.cycle is None else cycles.get(self._db, left.cycle)
        if cycle is None:
            process.kill_marked(left.token)  # its prerequisites
            self._ending.without_cycle(left, Status.LOST, "the loop was killed before the command")
            return
        self._work.reap()  # records `lost`, unless a runner of somebody else's has it
        self._work.withdraw(cycle)
        self._ending.of_cycle(left, self._work.see_through(cycle.cycle))
