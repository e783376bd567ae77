"""That the loop lives and what it does now: `latest.json`, the live line, the service manager's watchdog."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchestration.host import clock, notify
from orchestration.loop import ledger, records
from orchestration.loop.iteration import Row
from orchestration.store.instants import to_text

if TYPE_CHECKING:
    import signal

    from orchestration.host.notify import Notifier
    from orchestration.loop.screen import Screen
    from orchestration.loop.stopping import Stopping
    from orchestration.settings import Loop
    from orchestration.store.port import Database


class Presence:
    """What others can see of the loop, and what they ask of it by signals."""

    def __init__(
        self, db: Database, settings: Loop, log_dir: str, *, stopping: Stopping, screen: Screen, notifier: Notifier
    ) -> None:
        """Take the store that `latest.json` is a copy of, where it lies, and where to hear and to tell."""
        self._db, self._settings, self._log_dir = db, settings, log_dir
        self._stopping, self._screen, self._notifier = stopping, screen, notifier
        self._totals: dict[str, int] = {}
        self._at_work: tuple[int, str, float] | None = None  # iteration, what, since

    def begins(self) -> None:
        """Read what `latest.json` goes on from."""
        self._totals = ledger.totals(self._db)

    def is_ready(self) -> None:
        """Tell that the loop is ready."""
        self._notifier.tell(notify.READY)

    def ends(self) -> None:
        """Tell that the loop does nothing more."""
        self._notifier.tell(notify.STOPPING)
        self._screen.close()

    def asked(self) -> signal.Signals | None:
        """Say that we live, and return the signal by which what runs is to be cancelled, or None."""
        self._notifier.tell(notify.ALIVE)
        if self._at_work is not None:
            iteration, what, since = self._at_work
            elapsed = timedelta(seconds=clock.monotonic() - since)
            self._screen.runs(iteration, what, elapsed, self._settings.timeout)
        return self._stopping.cancels()

    def works(self, what: str, begun: ledger.Open) -> None:
        """Tell what an iteration is at."""
        self._at_work = (begun.iteration, what, clock.monotonic())
        self.tell(what, begun)

    def waits(self, what: str, until: datetime | None, left: timedelta) -> None:
        """Say that we live, and what we wait for."""
        self._notifier.tell(notify.ALIVE)
        self._screen.waits(what, until, left)

    def ended(self, row: Row) -> None:
        """Tell how an iteration ended."""
        self._totals = {**self._totals, row.status: self._totals.get(row.status, 0) + 1}
        self._at_work = None
        self.tell("ended", next_run_at=row.next_run_at)
        self._screen.ended(ledger.as_json(row))

    def tell(self, state: str, begun: ledger.Open | None = None, *, next_run_at: datetime | None = None) -> None:
        """Bring `latest.json` up to now."""
        past = ledger.past(self._db)
        document = {
            "schema": "v1",
            "state": state,
            "updated_at": to_text(clock.now()),
            "pid": os.getpid(),
            "current": None if begun is None else self._current(begun),
            "next_run_at": None if next_run_at is None else to_text(next_run_at),
            "failures_in_a_row": past.failures_in_a_row,
            "without_archive": past.without_archive,
            "stale": past.stale,
            "last": ledger.last_line(self._db),
            "totals": self._totals,
        }
        records.write_latest(self._log_dir, document)

    def _current(self, begun: ledger.Open) -> dict[str, object]:
        return {
            "iteration": begun.iteration,
            "cycle": begun.cycle,
            "mode": begun.plan.mode,
            "goal": begun.plan.goal,
            "started_at": to_text(begun.started_at),
            "timeout_seconds": self._settings.timeout.total_seconds(),
            "log_path": begun.plan.log_path,
        }
