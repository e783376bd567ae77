"""The cycle of an iteration: queued when no other is exclusive, run by the runner of all cycles, seen to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestration.cycles import claims
from orchestration.cycles import ledger as cycles
from orchestration.cycles.cycle import FINISHED, Cause, Cycle, CycleEvent, CycleNumber, CycleState, JobName, Origin, Result
from orchestration.cycles.job import Job
from orchestration.cycles.runner import Runner
from orchestration.errors import StoreUnreachable
from orchestration.host import clock
from orchestration.loop import ledger, records
from orchestration.loop.holding import holding
from orchestration.loop.schedule import words_of
from orchestration.loop.waiting import nap
from orchestration.tick.reap import reap
from orchestration.tick.settle import settle_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestration.loop.goals import Goals
    from orchestration.loop.iteration import Plan
    from orchestration.loop.options import Options
    from orchestration.loop.presence import Presence
    from orchestration.tick.kernel import Kernel

_PLANNED: Final = frozenset({"RUN_CYCLE_CAP_WRITES", "RUN_CYCLE_SANDBOX_RESET"})  # what `told` leaves out does not hold
_NAP_MS: Final = 500  # between two looks that take the tick's lock for a moment


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the loop's own environment hands on: without variables that a flag may have beaten."""
    return {name: value for name, value in environ.items() if name not in _PLANNED}


class Work:
    """The cycles of one loop."""

    def __init__(
        self, kernel: Kernel, options: Options, *, cwd: str, environ: Mapping[str, str], goals: Goals, presence: Presence
    ) -> None:
        """Take the store and locks, what to run where, and where to hear and to tell."""
        self._kernel, self._db = kernel, kernel.db
        self._options, self._settings, self._cwd = options, options.settings.loop, cwd
        self._goals, self._presence = goals, presence
        self._runner = Runner(
            options.settings,
            kernel.db,
            lock=kernel.runner_lock,
            environ=environ,
            start=lambda _entry: None,  # what follows a cycle is done here, and by any tick
            stopped=presence.asked,
        )

    def told(self, plan: Plan, iteration: int) -> dict[str, str]:
        """Return the variables that the commands of an iteration get besides."""
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

    def queue(self, begun: ledger.Open) -> CycleNumber | str:
        """Queue the iteration's cycle as soon as no other is exclusive; return its number, or why there is none."""
        held = False
        while self._presence.asked() is None:
            with holding(self._kernel) as ours:
                if ours and not self._others():
                    if not self._goals.stands():
                        return f"the intent {self._goals.intent} of its goal has gone, or was changed"
                    if (number := self._enqueue(begun)) is not None:
                        return number
            if not held:
                self._presence.tell("held by another cycle", begun)
                held = True
            self._run_queued()
            nap(_NAP_MS)
        return "interrupted before its command"

    def see_through(self, number: CycleNumber) -> Cycle:
        """Run the queue until this cycle has ended; another runner may have taken it."""
        while True:
            self._run_queued()
            cycle = cycles.get(self._db, number)
            if cycle is None:
                raise StoreUnreachable(f"cycle {number} has gone from the store", hint="was the store replaced meanwhile?")
            if cycle.state in FINISHED:
                return cycle
            if self._presence.asked() is not None:
                cycles.ask_cancel(self._db, number, now=clock.now())
                self.withdraw(cycle)
            self.reap()  # that runner may be killed
            nap(_NAP_MS)

    def withdraw(self, cycle: Cycle) -> None:
        """Cancel a cycle that is still queued."""
        if cycle.state is CycleState.QUEUED:
            with self._db.transaction():
                cycles.finish(self._db, cycle, CycleEvent.CANCEL, Result(reason="the loop was stopped"), now=clock.now())

    def reap(self) -> None:
        """Record as `lost` what runs without a runner, unless a tick is at it."""
        with holding(self._kernel) as ours:
            if ours:
                reap(self._kernel)

    def _enqueue(self, begun: ledger.Open) -> CycleNumber | None:
        """Queue the cycle; None when another host has queued one meanwhile."""
        plan = begun.plan
        words = words_of(self._settings.command, mode=plan.mode, goal=plan.goal)
        own = claims.here(self._kernel.settings)  # an iteration is run where its loop is
        job = Job(JobName.LOOP, words, self._cwd, self._settings.timeout, hosts=(own,) if own else ())
        variables = tuple(self.told(plan, begun.iteration).items())
        by = f"loop-{begun.iteration}"
        origin = Origin(Cause.LOOP, by, topic=plan.goal, intent=self._goals.intent, variables=variables)
        self._consent(begun, words)
        with self._db.transaction():
            if self._kernel.leading is not None and cycles.exclusive(self._db):
                return None
            number = cycles.enqueue(self._db, job=job, origin=origin, token=begun.token, now=clock.now())
            ledger.plan(self._db, begun._replace(cycle=number))
            self._goals.answer(number)
        self._goals.file_away()
        return number

    def _others(self) -> bool:
        """Settle what has ended, and tell whether a cycle is left that keeps ours from starting. Under the tick's lock."""
        reap(self._kernel)
        settle_now(self._kernel)
        return bool(cycles.exclusive(self._db))

    def _consent(self, begun: ledger.Open, words: tuple[str, ...]) -> None:
        consent = records.consent_of(
            words,
            who=self._options.consented.who,
            configured_at=self._options.consented.at,
            source=self._options.sources.get("command", "the default"),
            now=clock.now(),
            cap_writes=begun.plan.cap_writes,
            iteration=begun.iteration,
        )
        records.note_consent(self._kernel.settings.state_dir, consent)

    def _run_queued(self) -> None:
        """Run what is queued, unless another runner is at it."""
        if self._kernel.runner_lock.is_free():
            self._runner.run()
