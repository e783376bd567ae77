"""The one enum of exit codes.

Owns the numbers that systemd, cron and people read; knows nothing of why a program ends.
The codes from 64 up are those of BSD `sysexits(3)`. `SuccessExitStatus=` in the units is compared with this enum by
`tests/architecture`.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a process of ours ended; the value is the process's exit status (0 to 255)."""

    DONE = 0  # NOOP and "launched" included
    FAILED = 1  # the cause is in the log
    DISABLED = 2
    FAILURE_LIMIT = 3
    PHASE_FAILED = 10  # 10 to 13 only with --wait
    PHASE_TIMED_OUT = 11
    DREAM_FAILED = 12
    DREAM_TIMED_OUT = 13
    HALTED = 20
    USAGE = 64
    STORE_UNREACHABLE = 69
    DEFECT = 70
    UNWRITABLE = 74
    LOCK_HELD = 75
    SETTINGS_INVALID = 78
