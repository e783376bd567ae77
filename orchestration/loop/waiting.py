"""What the loop waits for before an iteration: the time, the end of maintenance, a goal. And why it waits no longer."""

from __future__ import annotations

import os
import select
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from orchestration.exits import Exit
from orchestration.host import clock
from orchestration.tick.gate import gate
from orchestration.tick.observe import MAINTENANCE_FILE

if TYPE_CHECKING:
    from orchestration.loop.goals import Goals
    from orchestration.loop.presence import Presence
    from orchestration.loop.stopping import Stopping
    from orchestration.tick.kernel import Kernel

_NAP_MS: Final = 100


class Waiting:
    """The waits of one loop."""

    def __init__(self, kernel: Kernel, stop_file: str, *, goals: Goals, stopping: Stopping, presence: Presence) -> None:
        """Take what is looked at meanwhile; `stop_file` is absolute, or empty."""
        self._kernel, self._stop_file = kernel, stop_file
        self._goals, self._stopping, self._presence = goals, stopping, presence

    def until(self, due: datetime | None) -> tuple[Exit, str] | None:
        """Wait until an instant, the end of maintenance and a goal; return how to exit if there is a reason to."""
        left = timedelta(0) if due is None else due - clock.now()
        until = clock.monotonic() + left.total_seconds()  # by a clock that nobody sets back
        told = ""
        while True:
            if (ended := self._reason_to_end()) is not None:
                return ended
            remaining = until - clock.monotonic()
            what = self._waits_for(remaining)
            if not what:
                return None
            if what != told:
                self._presence.tell(what, next_run_at=due)
                told = what
            self._presence.waits(what, due, timedelta(seconds=max(0.0, remaining)))
            nap(max(1, min(_NAP_MS, int(remaining * 1000) + 1)) if remaining > 0 else _NAP_MS)

    def _waits_for(self, remaining: float) -> str:
        if os.path.exists(self._kernel.path(MAINTENANCE_FILE)):
            return "maintenance"
        if remaining > 0:
            return "waiting"
        return "" if self._goals.are_there() else "waiting for an intent"

    def _reason_to_end(self) -> tuple[Exit, str] | None:
        if self._stopping.asked:
            return Exit.DONE, "asked to stop"
        if self._stop_file and os.path.lexists(self._stop_file):
            return Exit.DONE, f"the stop file {self._stop_file} exists"
        refused = gate(self._kernel.settings)
        return None if refused is None else (refused[0], refused[2])


def nap(milliseconds: int) -> None:
    """Sleep; a signal ends it."""
    select.poll().poll(milliseconds)
