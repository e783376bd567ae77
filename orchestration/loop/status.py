"""What an iteration can be called, and which of these are failures. Pure, and light: a quiet tick writes them as metrics."""

from enum import StrEnum


class Status(StrEnum):
    """How an iteration ended."""

    SUCCESS = "success"
    DEGRADED = "degraded"  # exit code 0, but no new archive
    FAILED = "failed"  # another exit code, or killed by a signal
    TIMED_OUT = "timed_out"
    PREREQ_FAILED = "prereq_failed"
    NOT_STARTED = "not_started"  # the command could not be executed
    INTERRUPTED = "interrupted"
    LOST = "lost"  # the loop or its runner was killed; how far the command came is unknown


FAILURES = frozenset({Status.FAILED, Status.TIMED_OUT, Status.PREREQ_FAILED, Status.NOT_STARTED, Status.LOST})
