"""The runner: claims queued cycles, one at a time, and sees each through to a result in the store.

Owns the order of things; `host/process` runs the command, `cycles/course` puts in place what it finds and records
what it left, `cycles/judgement` says what its end means. It holds `locks/runner.lock` from before it claims until
the end is recorded, so a cycle that is `running` while that lock is free has no runner (design rule 3).

What ends a cycle otherwise than by its command:
- `klorosctl cancel`: seen in the store within half a second; the tree is ended, the cycle is `cancelled`;
- SIGTERM, SIGINT or SIGHUP to the runner (systemctl stop, shutdown, Ctrl-C): the same, and the cycle is
  `cancelled`, not `lost`: we ended it ourselves and know that it did not finish. Nothing more is claimed;
- SIGKILL of the runner, or a reboot: the keeper ends the tree; how far the command came is unknown, so
  whoever looks next (a tick or a runner) records `lost`.

The turn of an agent (WAKE) is run by a runner of its own, `run_turn`, under the lock of its cycle: it stops no
other cycle and none stops it. Its consequences are a matter of the wake supervisor, so it ends settled.
"""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from orchestration.cycles import artifacts, claims, elsewhere, judgement, ledger, orphan, sightings
from orchestration.cycles.course import Course
from orchestration.cycles.cycle import PROMPT, Cycle, CycleEvent, CycleNumber, CycleState, JobName, Result
from orchestration.errors import KlorosError, LockHeld, StoreUnreachable
from orchestration.host import clock, process, process_identity
from orchestration.host.journal import Event, Priority, log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from orchestration.host.lock import FileLock
    from orchestration.settings import Settings
    from orchestration.store.port import Database

_ATTEMPTS: Final = 5  # at the lock: a tick that probes it holds it for some microseconds
_NAP_MS: Final = 50
_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Runner:
    """One runner; `run` is its whole life."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        *,
        lock: FileLock,
        environ: Mapping[str, str],
        start: Callable[[str], None],
        stopped: Callable[[], signal.Signals | None] | None = None,
    ) -> None:
        """Take the runner's world: `lock` is `locks/runner.lock`, `start` starts an entry (a launcher's verb).

        `stopped` is asked, also every half second while a command runs, for the signal by which to stop; without it the
        runner takes the process's signals itself.
        """
        self._settings = settings
        self._db = db
        self._lock = lock
        self._environ = environ
        self._course = Course(settings, db, environ=environ)
        self._start = start
        self._signal: signal.Signals | None = None
        self._stopped = stopped
        self._held_session = ""

    def run(self) -> int:
        """Run every queued cycle; come back when none is queued, another runner is at it, or we are asked to stop.

        Returns:
            How many cycles this runner has ended.

        Raises:
            StoreUnreachable, Unwritable: a running cycle is then `lost` for whoever looks next.
        """
        ended = 0
        with nullcontext() if self._stopped else self._stopping():
            while self._stop is None and self._is_work():
                try:
                    with self._held():
                        ended += self._drain()
                except LockHeld as error:
                    log(Event.RUNNER_IDLE, f"another runner is at work: {error.message}")
                    break
                # Queued between our last look and the lock's release, with its starter turned away: look
                # again.
        return ended

    def run_turn(self, number: CycleNumber) -> bool:
        """Run one queued WAKE cycle to its end; `lock` is that of the cycle.

        Returns:
            False when it was not run: it has ended, somebody else runs it, or we are asked to stop.

        Raises:
            StoreUnreachable, Unwritable: a running cycle is then `lost` for whoever looks next.
        """
        with nullcontext() if self._stopped else self._stopping():
            try:
                with self._held():
                    return self._turn(number)
            except LockHeld as error:
                log(Event.RUNNER_IDLE, f"another runner is at cycle {number}: {error.message}", cycle=number)
                return False

    def _turn(self, number: CycleNumber) -> bool:
        found = ledger.get(self._db, number)
        if found is not None and found.state is not CycleState.QUEUED and found.settled_at is None:
            orphan.end_turn(self._db, self._settings, found, now=clock.now())
        if self._stop is not None:
            return False
        if (claimed := self._claim(number)) is None:
            orphan.remove_lock(self._lock)  # it has ended; the file is of our making
            return False
        session = claimed.origin.session
        with ExitStack() as stack:
            self._held_session = ""
            if session:
                try:
                    stack.enter_context(orphan.session_lock(self._settings.state_dir, session).held(f"cycle {number}"))
                except LockHeld as error:
                    self._held_session = f"its session has another writer: {error.message}"
            self._see_through(claimed)
        orphan.settle_turn(self._db, self._settings, number, now=clock.now())
        return True

    @property
    def was_stopped(self) -> bool:
        """Whether a signal has asked this runner to stop."""
        return self._stop is not None

    @property
    def _stop(self) -> signal.Signals | None:
        return self._stopped() if self._stopped else self._signal

    @contextmanager
    def _held(self) -> Iterator[None]:
        for attempt in range(_ATTEMPTS):
            try:
                with self._lock.held("runner"):
                    yield
                return
            except LockHeld:
                if attempt == _ATTEMPTS - 1:
                    raise
                select.poll().poll(_NAP_MS)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        def note(number: int, _frame: FrameType | None) -> None:
            self._signal = signal.Signals(number)

        before = {number: signal.signal(number, note) for number in _STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _is_work(self) -> bool:
        return claims.is_waiting(ledger.active(self._db), self._settings)

    def _drain(self) -> int:
        for cycle in ledger.active(self._db):
            if cycle.state is CycleState.RUNNING and claims.is_ours(cycle, claims.here(self._settings)):
                orphan.end_processes(cycle)
                orphan.record_lost(self._db, cycle, now=clock.now(), seen=sightings.of_cycle(cycle, self._settings))
        ended = 0
        while self._stop is None and (claimed := self._claim()):
            self._see_through(claimed)
            ended += 1
        return ended

    def _claim(self, number: CycleNumber | None = None) -> Cycle | None:
        if number is None:
            elsewhere.bring_up_baseline(self._db, self._settings.state_dir)
            unable = claims.unable(self._settings)
            return ledger.claim_next(self._db, runner=_record(), now=clock.now(), unable=unable)
        with self._db.transaction():
            return ledger.claim(self._db, number, runner=_record(), now=clock.now())

    def _see_through(self, cycle: Cycle) -> None:
        log(Event.CYCLE_STARTED, f"cycle {cycle.cycle} ({cycle.job}) started", cycle=cycle.cycle, job=cycle.job)
        self._follow_up(self._course.record(cycle, self._end_of(cycle)))

    def _follow_up(self, finished: Cycle) -> None:
        """Write the manifest and start a tick; the next tick does either again if this fails."""
        try:
            self._course.write_manifest(finished)
            if self._stop is None:
                self._start("run_once")
        except KlorosError as error:
            log(Event.LAUNCH_FAILED, error.message, priority=Priority.WARNING, cycle=finished.cycle)

    def _end_of(self, cycle: Cycle) -> judgement.End:
        if cycle.cancel_asked_at is not None:
            return judgement.End(CycleEvent.CANCEL, Result(reason="cancelled before it started"))
        if held := self._held_session or self._held_by_gpu(cycle):
            return judgement.End(CycleEvent.CANCEL, Result(reason=held))
        if lacks := claims.unmet(cycle.job, self._settings):
            return judgement.End(CycleEvent.FAIL, Result(reason=f"this host can't run it: {lacks}", not_started=True))
        try:
            folder, env = self._course.prepare(cycle)
            completed = self._run(cycle, folder, env)
        except StoreUnreachable:
            raise
        except KlorosError as error:
            return self._course.failed(error)
        return self._course.judge(cycle, completed, stopped_by=self._stop)

    def _held_by_gpu(self, cycle: Cycle) -> str:
        """Say that a GPU is too busy for a reflection that idleness asked for; the tick's own unit sees no GPU."""
        if cycle.job is not JobName.REFLECTION or not self._db.rows("observer.made", intent=cycle.origin.intent):
            return ""
        from orchestration.host import load  # brings subprocess, which a loop need not wait for

        return load.gpu_busy(self._settings.reflection.max_gpu, self._environ)

    def _run(self, cycle: Cycle, folder: str, env: Mapping[str, str]) -> process.Completed:
        given = artifacts.prompt_path(folder) if cycle.job is JobName.WAKE and PROMPT not in cycle.command else None
        return process.run(
            _words(cycle),
            env=env,
            cwd=cycle.working_dir or folder,
            output=artifacts.output_path(folder),
            output_limit=self._settings.cycles.log_limit_bytes,
            timeout=cycle.timeout,
            grace=self._settings.cycles.term_grace,
            should_stop=lambda: self._stop is not None or self._is_to_end(cycle),
            standard_input=given,
            told=cycle.command,
        )

    def _is_to_end(self, cycle: Cycle) -> bool:
        """Tell whether a person asked for the cycle to be ended, or another host has ended it while ours was silent."""
        try:
            now = ledger.get(self._db, cycle.cycle)
        except StoreUnreachable:
            return False  # busy or away for the moment: the command is no worse for it, and we ask again
        return now is not None and (now.cancel_asked_at is not None or now.ended_at is not None)


def _words(cycle: Cycle) -> tuple[str, ...]:
    if cycle.job is not JobName.WAKE:
        return cycle.command
    return tuple(cycle.origin.prompt if word == PROMPT else word for word in cycle.command)


def _record() -> str:
    own = process_identity.current()
    return json.dumps({**own._asdict(), "host": os.uname().nodename})
