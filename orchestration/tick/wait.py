"""`--wait`: stay until the cycle that a tick started, or found at work, is settled, and exit with its typed code."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta

from orchestration.cycles import ledger
from orchestration.cycles.cycle import FINISHED, Cycle, CycleNumber, CycleState, JobName
from orchestration.errors import LockHeld, StoreUnreachable
from orchestration.exits import Exit
from orchestration.host import clock
from orchestration.tick.decision import Reason
from orchestration.tick.history import Tick
from orchestration.tick.kernel import Kernel
from orchestration.tick.reap import orphaned, reap
from orchestration.tick.settle import settle_now
from orchestration.tick.tick import launch

_EVERY = 0.2  # seconds between two looks at the store: SQLite tells nobody that another process has written
_AGAIN = 5.0  # seconds after which a runner is started again for a cycle that none has claimed
_CODES = {
    (JobName.PHASE, CycleState.TIMED_OUT): Exit.PHASE_TIMED_OUT,
    (JobName.DREAM, CycleState.TIMED_OUT): Exit.DREAM_TIMED_OUT,
}
_FAILED = {
    JobName.PHASE: Exit.PHASE_FAILED,
    JobName.DREAM: Exit.DREAM_FAILED,
    JobName.LOOP: Exit.FAILED,
    JobName.REFLECTION: Exit.FAILED,
    JobName.WAKE: Exit.FAILED,
}


def wait(kernel: Kernel, record: Tick, *, as_json: bool) -> Exit:
    """Wait for the cycle that this tick started, or that kept it from starting one; shows progress on a terminal.

    The timer's tick, or a hint's, may have been first, with what the person who waits had asked for.
    """
    number = record.cycle or _at_work(kernel, record)
    if number is None:
        return record.exit
    cycle = _until_settled(kernel, number)
    _clear_line()
    said = "" if cycle.result is None else cycle.result.reason
    if as_json:
        print(json.dumps({"cycle": cycle.cycle, "job": cycle.job, "state": cycle.state, "reason": said}))
    else:
        print(f"cycle {cycle.cycle} ({cycle.job}) {cycle.state}: {said}")
    return exit_of(cycle)


def exit_of(cycle: Cycle) -> Exit:
    """Return the typed code of a finished cycle."""
    if cycle.state is CycleState.SUCCEEDED:
        return Exit.DONE
    return _CODES.get((cycle.job, cycle.state), _FAILED[cycle.job])


def _at_work(kernel: Kernel, record: Tick) -> int | None:
    """Return which cycle kept a tick from starting one; it may have been settled since, and failed."""
    found = ledger.last_queued(kernel.db, record.ended_at) if Reason.CYCLE_ACTIVE in record.reasons else None
    return None if found is None else found.cycle


def _until_settled(kernel: Kernel, number: int) -> Cycle:
    again_at = clock.monotonic() + _AGAIN
    while True:
        cycle = ledger.get(kernel.db, CycleNumber(number))
        if cycle is None:
            raise StoreUnreachable(f"cycle {number} has gone from the store", hint="was the store replaced meanwhile?")
        if cycle.settled_at is not None:
            return cycle
        if cycle.state in FINISHED or orphaned(kernel):
            _settle_if_free(kernel)
        if cycle.state is CycleState.QUEUED and clock.monotonic() > again_at:
            launch(kernel)  # where nothing else ticks, nobody else would
            again_at = clock.monotonic() + _AGAIN
        _progress(kernel, cycle)
        time.sleep(_EVERY)  # a cycle's end is in the store, which tells nobody


def _settle_if_free(kernel: Kernel) -> None:
    """Settle here and now, unless another tick is at it."""
    try:
        with kernel.lock.held("wait"):
            reap(kernel)
            settle_now(kernel)
    except LockHeld:
        pass


def _progress(kernel: Kernel, cycle: Cycle) -> None:
    if not sys.stderr.isatty():
        return
    elapsed = kernel.now() - (cycle.started_at or cycle.queued_at)
    whole = timedelta(seconds=int(elapsed.total_seconds()))
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    line = f"cycle {cycle.cycle} ({cycle.job}) {cycle.state}, {whole} of {cycle.timeout}"
    sys.stderr.write(f"\r{line[: columns - 1]}\033[K")
    sys.stderr.flush()


def _clear_line() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
