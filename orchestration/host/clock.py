"""The one module that reads a clock. Everything else takes `now` as an argument.

Owns the two clocks we use; refuses to know time zones (`phase/window.py` does).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_ahead = timedelta(0)


def now() -> datetime:
    """Give the current instant, aware, UTC, to the microsecond."""
    return datetime.now(UTC) - _ahead


def follow(ahead: timedelta) -> None:
    """Take from now on this off what the host's clock says: by so much is it ahead of the clock that counts.

    For hosts that share a store, whose instants would contradict each other; this process only.
    """
    global _ahead  # a process has one clock
    _ahead = ahead


def monotonic() -> float:
    """Give seconds since an arbitrary point; never goes back, unlike `now`. For deadlines and durations."""
    return time.monotonic()
