"""The turns of agents as cycles of this host: queued by token, started as a process of their own, read back.

A turn runs through the cycle runner, in the WAKE lane (`cycles/runner.py`, `run_turn`): deadline, end of the whole
process tree, output, manifest and result are as of every cycle. Whoever has the token of an attempt finds its turn
again, whatever became of the supervisor that queued it.

Every call is short and synchronous, over the host's own store; what waits for a turn looks at it again.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestration.bridge.wake.port import WakeFailed
from orchestration.bridge.wake.state import Code
from orchestration.cycles import artifacts, claims, ledger, orphan
from orchestration.cycles.cycle import FINISHED, Cause, CycleEvent, CycleNumber, CycleState, JobName, Origin, Result
from orchestration.cycles.environment import without_cycle
from orchestration.cycles.job import Job
from orchestration.cycles.launch.detached import DetachedLauncher
from orchestration.host import clock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from orchestration.bridge.wake.port import Turn
    from orchestration.bridge.wake.state import Claim
    from orchestration.cycles.cycle import Cycle
    from orchestration.settings import Settings
    from orchestration.store.port import Database

_HEAD: Final = 64 * 1024
_TAIL: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a turn stands."""

    cycle: CycleNumber
    state: CycleState
    result: Result | None
    output: tuple[str, ...]
    """The lines that it has printed so far; of very long output the first and the last."""
    runs: bool
    """Whether some process is at it: False for one that is to be started (queued), or is lost (running)."""

    @property
    def ended(self) -> bool:
        """Whether it has come to an end."""
        return self.state in FINISHED


class Turns:
    """The turns of this host."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], db: Database) -> None:
        """Take the host's settings, what the turns' processes get for their environment, and the host's store."""
        self._settings = settings
        self._db = db
        log_dir = os.path.join(settings.state_dir, "logs")
        self._launcher = DetachedLauncher(log_dir, without_cycle(environ), (sys.executable, "-P", "-m"))

    def enqueue(self, turn: Turn, *, token: str, timeout: timedelta, claim: Claim | None = None) -> CycleNumber:
        """Queue a turn, once for each token, and return its cycle. A token marks the turn's processes: unique on this host.

        Under a claim it is queued only while the claim holds, which is seen in the same transaction: a supervisor that was
        paused for longer than its claim lasts queues nothing beside the one that has it now.

        Raises:
            WakeFailed: the claim holds no more.
            StoreUnreachable: it is not queued.
        """
        origin = Origin(Cause.WAKE, "", variables=turn.variables, prompt=turn.prompt, session=turn.session_id)
        here = claims.here(self._settings)  # whose runtime has the session
        job = Job(JobName.WAKE, turn.command, turn.working_dir, timeout, hosts=(here,) if here else ())
        with self._db.transaction():
            found = ledger.of_token(self._db, token)
            if found is not None:
                return found.cycle
            if claim is not None and not self._holds(claim):
                raise WakeFailed(Code.WAKE_FAILED, f"the claim of {claim.holder} on {claim.trigger_id} holds no more")
            return ledger.enqueue(self._db, job=job, origin=origin, token=token, now=clock.now())

    def _holds(self, claim: Claim) -> bool:
        found = self._db.rows("turns.hold_claim", trigger_id=claim.trigger_id, holder=claim.holder, fence=claim.fence)
        return bool(found)

    def start(self, cycle: CycleNumber) -> None:
        """Start the process that runs a queued turn; a second one finds the first at it, and ends.

        Raises:
            CommandNotStarted: no process to be had. Unwritable: its log can't be written.
        """
        self._launcher.start("run_cycle", "--wake", str(cycle))

    def look(self, token: str) -> Standing | None:
        """Return where the turn of a token stands; None when there is none."""
        cycle = ledger.of_token(self._db, token)
        return None if cycle is None else self._standing(cycle)

    def cancel(self, cycle: CycleNumber) -> None:
        """Have a turn ended: a queued one at once, a running one by its runner."""
        with self._db.transaction():
            found = ledger.get(self._db, cycle)
            if found is not None and found.state is CycleState.QUEUED:
                result = Result(reason="its trigger needs it no more")
                ledger.finish(self._db, found, CycleEvent.CANCEL, result, now=clock.now())
            elif found is not None:
                ledger.ask_cancel(self._db, cycle, now=clock.now())

    def end_lost(self) -> list[CycleNumber]:
        """Record those turns as lost that stand as running and have no runner any more, and do what else a dead runner came
        not to; ticks do so too. Returns the lost ones."""
        lost = [one for one in ledger.watched(self._db) if one.job is JobName.WAKE and self._is_lost(one)]
        for cycle in lost:
            orphan.end_turn(self._db, self._settings, cycle, now=clock.now())
        return [cycle.cycle for cycle in lost if cycle.state is CycleState.RUNNING]

    def _is_lost(self, cycle: Cycle) -> bool:
        ours = cycle.state is not CycleState.QUEUED and claims.is_ours(cycle, claims.here(self._settings))
        if not ours or not self._lock_is_free(cycle):
            return False
        now = ledger.get(self._db, cycle.cycle)  # it may have ended, and its runner too, between the two looks
        return now is not None and (now.state, now.settled_at) == (cycle.state, None)

    def _lock_is_free(self, cycle: Cycle) -> bool:
        return orphan.lock_of(self._settings.state_dir, cycle).is_free()

    def _standing(self, cycle: Cycle) -> Standing:
        runs = cycle.ended_at is None and not self._lock_is_free(cycle)
        output = artifacts.output_path(artifacts.cycle_dir(self._settings.cycles_dir, cycle.cycle))
        lines = () if cycle.started_at is None else _lines(output)
        return Standing(cycle=cycle.cycle, state=cycle.state, result=cycle.result, output=lines, runs=runs)


def _lines(path: str) -> tuple[str, ...]:
    """Read the whole lines of an output file."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD + _TAIL)
            size = os.fstat(file.fileno()).st_size
            if size <= len(head):
                return _whole(head)
            file.seek(-_TAIL, os.SEEK_END)
            _, _, tail = file.read(_TAIL).partition(b"\n")
    except OSError:
        return ()
    return (*_whole(head[:_HEAD].rpartition(b"\n")[0]), *_whole(tail))


def _whole(content: bytes) -> tuple[str, ...]:
    return tuple(line.decode(errors="replace") for line in content.splitlines())
