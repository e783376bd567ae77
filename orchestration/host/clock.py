"""The one module that reads a clock. Everything else takes `now` as an argument.

Owns the two clocks we use; refuses to know time zones (`phase/window.py` does).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Give the current instant, aware, UTC, to the microsecond."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Give seconds since an arbitrary point; never goes back, unlike `now`. For deadlines and durations."""
    return time.monotonic()
