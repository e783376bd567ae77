"""An iteration of the continuous loop: what it set out to do, what became of it, and which ends are failures. Pure.

A failure is whatever did not end by itself with exit code 0. `degraded` is none: the command ended well, without a new
archive; that is for the stale alert. `interrupted` says nothing of the command; it neither breaks nor lengthens a streak.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from orchestration.cycles.cycle import Cycle, CycleState
from orchestration.loop.status import Status

STALE_AFTER = 3
"""Iterations in a row without a new archive that raise the stale alert."""


_OF_STATE = {
    CycleState.TIMED_OUT: Status.TIMED_OUT,
    CycleState.CANCELLED: Status.INTERRUPTED,
    CycleState.LOST: Status.LOST,
    CycleState.FAILED: Status.FAILED,
}


class Prerequisite(NamedTuple):
    """One condition and whether it held; `detail` says what was found."""

    name: str
    passed: bool
    detail: str


class Plan(NamedTuple):
    """What an iteration sets out to do, kept in the store so that whoever finds it half-done can end it."""

    mode: str
    goal: str
    cap_writes: int | None
    archives: str  # absolute pattern; "" when none is expected
    log_path: str
    prerequisites: tuple[Prerequisite, ...] = ()
    known: tuple[str, ...] = ()  # SHA-256 of the archives that were there before the command


class Row(NamedTuple):
    """An iteration that has ended, as a line of the history; instants are aware UTC, durations seconds."""

    timestamp: datetime
    started_at: datetime
    ended_at: datetime
    duration_seconds: float
    iteration: int
    mode: str
    goal: str
    status: Status
    return_code: int | None
    signal: str | None
    prerequisites: tuple[Prerequisite, ...]
    archive_created: bool
    archive_path: str | None  # the newest archive
    stderr_tail: str  # the end of both streams: the command writes them into one log
    log_path: str
    cycle: int | None
    cap_writes: int | None
    next_run_at: datetime | None


def status_of(cycle: Cycle, *, archive_new: bool, archive_expected: bool) -> Status:
    """Say what a finished cycle means for its iteration.

    Raises:
        ValueError: the cycle has not finished.
    """
    if cycle.state is CycleState.SUCCEEDED:
        return Status.SUCCESS if archive_new or not archive_expected else Status.DEGRADED
    if cycle.state not in _OF_STATE:
        raise ValueError(f"cycle {cycle.cycle} is {cycle.state}: it has not finished")
    if cycle.result is not None and cycle.result.not_started:
        return Status.NOT_STARTED
    return _OF_STATE[cycle.state]


def without_archive(newest_first: Iterable[bool | None]) -> int:
    """Count the runs since the last one that left a new archive; None is an iteration whose command was not run."""
    number = 0
    for new in newest_first:
        if new:
            break
        number += new is not None
    return number
