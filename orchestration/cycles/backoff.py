"""How long to wait after failures in a row. Pure."""

from datetime import datetime, timedelta
from typing import NamedTuple


class Failures(NamedTuple):
    """Failures in a row, and when the last of them ended (aware UTC; None when there is none)."""

    in_a_row: int
    last_ended_at: datetime | None


NO_FAILURES = Failures(in_a_row=0, last_ended_at=None)


class Backoff(NamedTuple):
    """Ascending waits; the last one repeats. No steps: no wait."""

    steps: tuple[timedelta, ...]

    def after(self, failures: int) -> timedelta:
        """Return the wait after this many failures in a row (≥ 0)."""
        if failures <= 0 or not self.steps:
            return timedelta(0)
        return self.steps[min(failures, len(self.steps)) - 1]

    def until(self, failures: Failures, now: datetime) -> datetime | None:
        """Return the instant before which nothing is tried again, or None when it may be tried now.

        A failure that ended in the future was written by a clock that has since been set back; it holds nothing up.
        """
        if failures.last_ended_at is None or failures.last_ended_at > now:
            return None
        until = failures.last_ended_at + self.after(failures.in_a_row)
        return until if until > now else None
