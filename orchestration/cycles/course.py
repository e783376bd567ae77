"""The course of a cycle around its command: what is put in place before it, and what is recorded after it.

Alike whoever runs the command: a runner on this host, or Slurm on a node. The result is committed to the store first, with
the list of what the cycle left; the manifest is then written from the store, and the next tick repairs one that is missing
(design rule 8).
"""

from __future__ import annotations

import os
import select
import shutil
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestration.cycles import (
    artifacts,
    elsewhere,
    environment,
    inventory,
    judgement,
    ledger,
    packing,
    products,
    revision,
    sightings,
    telemetry,
)
from orchestration.cycles.cycle import PROMPT, Cause, Cycle, CycleEvent, CycleState, JobName, Result
from orchestration.errors import CommandLost, CommandNotStarted, KlorosError, StoreUnreachable
from orchestration.host import clock, files
from orchestration.host.journal import Event, Priority, log
from orchestration.phase import hints

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

    from orchestration.host.process import Completed
    from orchestration.settings import Settings
    from orchestration.store.port import Database

_ATTEMPTS: Final = 30  # of ten seconds each, see store/sqlite.py
_NAP_MS: Final = 50
_BASELINE: Final = "baseline.json"
_SIGNALS: Final = "signals"


class Prepared(NamedTuple):
    """Where a cycle's command finds its folder, and its whole environment."""

    folder: str
    env: dict[str, str]


class Course:
    """The course of the cycles of one state folder."""

    def __init__(self, settings: Settings, db: Database, *, environ: Mapping[str, str], is_away: bool = False) -> None:
        """Take the settings, the store and the environment that commands inherit.

        Args:
            is_away: the command runs on another host, with which only the folders of the cycles are shared: what it reads
                and leaves has its place there.
        """
        self._is_away = is_away
        self._settings = settings
        self._db = db
        self._environ = environ

    def prepare(self, cycle: Cycle) -> Prepared:
        """Make a cycle's folder, note in the store what its command is given, and put in place what it is to find.

        Raises:
            StoreUnreachable: the store can't be had.
            KlorosError: it can't be prepared; `failed` says what that makes of the cycle.
        """
        elsewhere.bring_up_baseline(self._db, self._settings.state_dir)
        earlier = artifacts.put_aside(self._settings.cycles_dir, cycle.cycle)
        folder = artifacts.make_folder(self._settings.cycles_dir, cycle.cycle)
        env = self._environment(cycle, folder)
        if cycle.origin.resumes and earlier is not None:
            artifacts.carry_over(earlier, folder)
            env |= environment.of_resumed(earlier)
        code = revision.of_command(cycle.command, cycle.working_dir)
        products.begin(self._db, cycle.cycle, environment=env, revision=code)
        self.write_manifest(cycle)
        self._put_in_place(cycle, folder)
        return Prepared(folder, env)

    def failed(self, error: KlorosError) -> judgement.End:
        """Say what an error before or around the command makes of its cycle."""
        if isinstance(error, CommandLost):
            return judgement.End(CycleEvent.LOSE, Result(reason=error.message))
        return judgement.End(CycleEvent.FAIL, Result(reason=str(error), not_started=isinstance(error, CommandNotStarted)))

    def judge(self, cycle: Cycle, completed: Completed, *, stopped_by: signal.Signals | None = None) -> judgement.End:
        """Judge a command that has ended; `stopped_by` is the signal that asked the runner to stop, if one did."""
        folder = artifacts.cycle_dir(self._settings.cycles_dir, cycle.cycle)
        if self._is_away:
            _bring(os.path.join(folder, _SIGNALS), self._path(_SIGNALS))
        return judgement.judge(cycle, completed, folder=folder, signals_dir=self._path(_SIGNALS), stopped_by=stopped_by)

    def record(self, cycle: Cycle, end: judgement.End) -> Cycle:
        """Record the end of a running cycle with what it left, tell it, and return the cycle as it is now.

        Raises:
            StoreUnreachable: nobody let go of the store in `_ATTEMPTS` times its own waiting.
        """
        left = self._left_by(cycle)
        folder = artifacts.cycle_dir(self._settings.cycles_dir, cycle.cycle)
        measured = telemetry.read(folder) if left.files else telemetry.NOTHING
        seen = sightings.of_cycle(cycle, self._settings) if left.files else sightings.NOTHING
        needed = elsewhere.left_by(cycle, folder, end.result) if left.files and self._db.is_shared else []
        self._commit(cycle, end, left, measured, seen, needed)
        finished = ledger.get(self._db, cycle.cycle)
        assert finished is not None, f"cycle {cycle.cycle} has gone from the store"
        log(
            Event.CYCLE_ENDED,
            f"cycle {cycle.cycle} ({cycle.job}) {finished.state}: {end.result.reason}",
            priority=Priority.NOTICE if finished.state is CycleState.SUCCEEDED else Priority.WARNING,
            cycle=cycle.cycle,
            job=cycle.job,
            state=finished.state,
        )
        return finished

    def write_manifest(self, cycle: Cycle) -> None:
        """Write a cycle's manifest from the store.

        Raises:
            Unwritable: it can't be; the next tick tries again.
        """
        artifacts.write_manifest(self._settings.cycles_dir, cycle, products.get(self._db, cycle.cycle))

    def _commit(
        self,
        cycle: Cycle,
        end: judgement.End,
        left: inventory.Inventory,
        measured: telemetry.Telemetry,
        seen: sightings.Seen,
        needed: list[dict[str, object]],
    ) -> None:
        """Commit the end; tried again while somebody keeps the store, for work that was done must not count as lost."""
        now = clock.now()
        for attempt in range(_ATTEMPTS):
            try:
                with self._db.transaction():
                    elsewhere.keep(self._db, needed)
                    ledger.finish(self._db, cycle, end.event, end.result, now=now)
                    products.end(self._db, cycle.cycle, left)
                    telemetry.note(self._db, cycle.cycle, measured)
                    sightings.note(self._db, cycle.cycle, seen)
                    packing.ask(self._db, self._settings, cycle, due=now + packing.RUNNERS_TURN)
                return
            except StoreUnreachable as error:
                if attempt == _ATTEMPTS - 1:
                    raise
                told = f"the end of cycle {cycle.cycle} can't be recorded yet, trying again: {error.message}"
                log(Event.CYCLE_ENDED, told, priority=Priority.WARNING, cycle=cycle.cycle)
                select.poll().poll(_NAP_MS)

    def _left_by(self, cycle: Cycle) -> inventory.Inventory:
        """List what the cycle left; nothing when it never began, whatever lies in a folder of its number."""
        if products.get(self._db, cycle.cycle).environment is None:
            return inventory.Inventory(())
        return inventory.take(artifacts.cycle_dir(self._settings.cycles_dir, cycle.cycle))

    def _environment(self, cycle: Cycle, folder: str) -> dict[str, str]:
        baseline = os.path.join(folder, _BASELINE) if self._is_away else self._path("baseline", _BASELINE)
        if cycle.job is JobName.LOOP:
            extra = environment.of_loop(cycle)
        elif cycle.job is JobName.PHASE:
            epoch = judgement.epoch_of(cycle)
            signals = os.path.join(folder, _SIGNALS) if self._is_away else self._path(_SIGNALS)
            extra = environment.of_phase(cycle, epoch=epoch, signals_dir=signals, baseline=baseline)
            extra |= self._hints(cycle, folder)
        elif cycle.job is JobName.REFLECTION:
            extra = environment.of_reflection(cycle, digest=artifacts.digest_path(folder))
        elif cycle.job is JobName.WAKE:
            extra = environment.of_wake(cycle)
        else:
            extra = environment.of_dream(cycle, handover=artifacts.handover_path(folder), baseline=baseline)
        return environment.of_command(cycle, self._environ, state_dir=self._settings.state_dir, folder=folder, extra=extra)

    def _hints(self, cycle: Cycle, folder: str) -> dict[str, str]:
        """Choose and write the hints of a PHASE; whatever hinders that, the PHASE runs, without."""
        if cycle.origin.cause is Cause.DIRECT:
            return {}
        try:
            path = hints.give(self._db, cycle.cycle, folder=folder, state_dir=self._settings.state_dir)
            return environment.of_hinted(path)
        except (KlorosError, OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            told = f"PHASE {cycle.cycle} runs without hints: {error}"
            log(Event.HINTS_LEFT, told, priority=Priority.WARNING, cycle=cycle.cycle)
            return {}

    def _put_in_place(self, cycle: Cycle, folder: str) -> None:
        """Put in place what the command is to find."""
        if cycle.job is JobName.PHASE:
            from orchestration.phase.signal import put_aside

            files.make_folder(self._path(_SIGNALS))
            put_aside(self._path(_SIGNALS), judgement.epoch_of(cycle))
            if self._is_away:
                files.make_folder(os.path.join(folder, _SIGNALS))
        elif cycle.job is JobName.DREAM:
            from orchestration.baseline import copies

            copies.check_in_force(self._db, self._path("baseline"))
            self._hand_over(cycle, folder)
        elif cycle.job is JobName.REFLECTION:
            from orchestration.reflection import digest

            files.replace(artifacts.digest_path(folder), digest.to_bytes(digest.take(self._db)), 0o640)
        elif cycle.job is JobName.WAKE and PROMPT not in cycle.command:
            files.replace(artifacts.prompt_path(folder), cycle.origin.prompt.encode(), 0o600)

        if self._is_away and os.path.exists(in_force := self._path("baseline", _BASELINE)):
            shutil.copyfile(in_force, os.path.join(folder, _BASELINE))

    def _hand_over(self, cycle: Cycle, folder: str) -> None:
        if not self._db.is_shared:
            artifacts.hand_over(cycle, folder, self._settings, now=clock.now())
            return
        place, owners = elsewhere.fetch_promotions(self._db, cycle.origin.promotions, folder)
        artifacts.hand_over(cycle, folder, self._settings, now=clock.now(), promotions_dir=place, owners=owners)

    def _path(self, *names: str) -> str:
        return os.path.join(self._settings.state_dir, *names)


def _bring(folder: str, to: str) -> None:
    """Put the signals that a command left on another host where they are looked for, and keep its own."""
    files.make_folder(to)
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        if entry.is_file(follow_symlinks=False):
            with open(entry.path, "rb") as file:
                files.replace(os.path.join(to, entry.name), file.read(), 0o640)
