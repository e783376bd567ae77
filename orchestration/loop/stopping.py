"""SIGINT and SIGTERM: the first lets the current cycle finish, a second one, or the stop timeout, cancels it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestration.host import clock

if TYPE_CHECKING:
    from types import FrameType


class Stopping:
    """What the signals so far ask for."""

    def __init__(self, timeout: timedelta) -> None:
        """Take how long a cycle may go on after the first signal; zero is as long as it takes."""
        self._timeout = timeout.total_seconds()
        self._signals: list[signal.Signals] = []
        self._first_at = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals for the length of the block."""
        taken = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in taken}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self._signals:
            self._first_at = clock.monotonic()
        self._signals.append(signal.Signals(number))

    @property
    def asked(self) -> bool:
        """Whether no further iteration may begin."""
        return bool(self._signals)

    def cancels(self) -> signal.Signals | None:
        """Return the signal by which the current cycle is to be cancelled now, or None."""
        if not self._signals:
            return None
        waited = self._timeout and clock.monotonic() - self._first_at >= self._timeout
        return self._signals[-1] if len(self._signals) > 1 or waited else None
