"""What the end of a cycle's command means: the event of the lifecycle, and the result with its reason.

A command that ended by itself with exit code 0 has succeeded only if what it left is in order: a PHASE's
report under its signal, a D-REAM cycle's verdicts. What is missing or broken fails the cycle, with the reason
(design rule 5).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from orchestration.cycles import artifacts
from orchestration.cycles.cycle import Cycle, CycleEvent, JobName, Result
from orchestration.errors import KlorosError
from orchestration.host import clock
from orchestration.phase.epoch import Epoch, epoch_id

if TYPE_CHECKING:
    import signal

    from orchestration.host.process import Completed


class End(NamedTuple):
    """How a cycle ended."""

    event: CycleEvent
    result: Result


def epoch_of(cycle: Cycle) -> Epoch:
    """Return the epoch of a PHASE: named by the instant at which it was decided, so it stays when asked again."""
    return epoch_id(cycle.queued_at)


def judge(cycle: Cycle, completed: Completed, *, folder: str, signals_dir: str, stopped_by: signal.Signals | None) -> End:
    """Judge a command that has ended.

    Args:
        cycle: as claimed. completed: how the command ended. folder: the cycle's. signals_dir: where
        completion signals lie. stopped_by: the signal that asked the runner to stop, if one did. systemd
        sends it to the command as well, so a command
            that has not ended well by then was cancelled rather than failed.
    """
    result = _measured(completed)
    if completed.timed_out:
        return End(CycleEvent.TIME_OUT, result)
    if stopped_by is not None and (completed.cancelled or not completed.succeeded):
        return End(CycleEvent.CANCEL, result._replace(reason=f"the runner was stopped by {stopped_by.name}"))
    if completed.cancelled:
        return End(CycleEvent.CANCEL, result._replace(reason="cancelled on request"))
    if not completed.succeeded:
        return End(CycleEvent.FAIL, _with_report(cycle, folder, result))
    try:
        return End(CycleEvent.SUCCEED, _verified(cycle, completed, folder, signals_dir, result))
    except KlorosError as error:
        return End(CycleEvent.FAIL, _with_report(cycle, folder, result._replace(reason=error.message)))


def _measured(completed: Completed) -> Result:
    return Result(
        reason=completed.describe(),
        exit_code=completed.returncode,
        signal=completed.signal_name,
        wall_seconds=round(completed.wall.total_seconds(), 3),
        cpu_seconds=round(completed.cpu.total_seconds(), 3),
        peak_bytes=completed.peak_bytes,
        output_truncated=completed.output_truncated,
    )


def _with_report(cycle: Cycle, folder: str, result: Result) -> Result:
    """Name the report of a failed PHASE too, if it left one: it says what failed."""
    if cycle.job is not JobName.PHASE:
        return result
    path = artifacts.report_path(folder)
    return result._replace(epoch=epoch_of(cycle), report=path if os.path.exists(path) else None)


def _verified(cycle: Cycle, completed: Completed, folder: str, signals_dir: str, result: Result) -> Result:
    if cycle.job in (JobName.LOOP, JobName.WAKE):
        return result
    if cycle.job is JobName.REFLECTION:
        written = artifacts.reflection_path(folder)
        return result._replace(report=written if os.path.isfile(written) else None)
    if cycle.job is JobName.DREAM:
        digest = artifacts.check_verdicts(folder)
        path = None if digest is None else artifacts.verdicts_path(folder)
        return result._replace(report=path, report_sha=digest)
    from orchestration.phase.signal import settle_signal

    signal = settle_signal(
        signals_dir,
        epoch_of(cycle),
        report=artifacts.report_path(folder),
        started=completed.started_at,
        now=clock.now(),
    )
    return result._replace(epoch=signal.epoch_id, report=signal.report, report_sha=signal.sha256)
