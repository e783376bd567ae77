"""The end of an iteration: its row in the store, then in the history, its log, the journal and the metrics."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from orchestration.cycles import artifacts
from orchestration.cycles.backoff import Backoff
from orchestration.cycles.cycle import Cycle
from orchestration.errors import KlorosError
from orchestration.exits import Exit
from orchestration.host import clock
from orchestration.host.journal import Event, Priority, log
from orchestration.loop import ledger, records
from orchestration.loop.archives import Archives
from orchestration.loop.holding import holding
from orchestration.loop.iteration import Row, status_of
from orchestration.loop.prerequisites import tail
from orchestration.loop.schedule import Pace
from orchestration.loop.status import FAILURES, Status
from orchestration.tick.settle import settle_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.loop.presence import Presence
    from orchestration.settings import Loop
    from orchestration.tick.kernel import Kernel

_TAIL: Final = 2000


class Ending:
    """How the iterations of one loop end."""

    def __init__(
        self,
        kernel: Kernel,
        settings: Loop,
        *,
        pattern: str,
        archives: Archives,
        presence: Presence,
        exit_after: Callable[[Status, int], Exit | None],
    ) -> None:
        """Take the store, the archives of the absolute pattern of this loop, and what tells whether another run follows.

        `exit_after` gets how the iteration ended and how many failures in a row there are then.
        """
        self._exit_after = exit_after
        self._kernel, self._db, self._settings = kernel, kernel.db, settings
        self._pattern, self._archives, self._presence = pattern, archives, presence
        self._pace = Pace(settings.sleep, Backoff(settings.backoff), settings.max_backoff, settings.jitter, settings.seed)

    def left_to_wait(self) -> datetime | None:
        """Return until when the wait for an earlier loop's failure lasts."""
        past = ledger.past(self._db)
        if past.last_ended_at is None or past.wait_until is None:
            return None
        return self._pace.resumed(past.last_ended_at, past.wait_until, now=clock.now())

    def of_cycle(self, begun: ledger.Open, cycle: Cycle) -> Row:
        """End an iteration whose cycle has ended."""
        pattern = begun.plan.archives
        archives = self._archives if pattern == self._pattern else Archives(pattern)
        path, new = archives.newest(begun.plan.known)
        status = status_of(cycle, archive_new=new, archive_expected=bool(pattern))
        row = self._row(begun, cycle, status, _reason_of(cycle))
        row = row._replace(archive_created=bool(pattern) and new, archive_path=path)
        with holding(self._kernel) as ours:
            if ours:
                settle_now(self._kernel)
        ran = status is not Status.NOT_STARTED and cycle.started_at is not None
        return self._end(row, _reason_of(cycle), archive_new=new if pattern and ran else None)

    def without_cycle(self, begun: ledger.Open, status: Status, reason: str) -> Row:
        """End an iteration whose command was not run, or that nobody knows to have been run."""
        return self._end(self._row(begun, None, status, reason), reason, archive_new=None)

    def note_next_run(self, at: datetime | None) -> None:
        """Bring the metrics up to what the loop is at; None: no run is planned."""
        with self._db.transaction():
            ledger.note_gauges(self._db, max_failures=self._settings.max_failures, next_run_at=at)
        self._publish()

    def _end(self, row: Row, reason: str, *, archive_new: bool | None) -> Row:
        failures = ledger.past(self._db).failures_in_a_row + 1 if row.status in FAILURES else 0
        wait_until = row.ended_at + self._pace.after(failures, iteration=row.iteration)
        row = row._replace(next_run_at=wait_until if self._is_resumed(row.status, failures) else None)
        with self._db.transaction():
            ledger.end(self._db, row, archive_new=archive_new, wait_until=wait_until)
            ledger.note_gauges(self._db, max_failures=self._settings.max_failures, next_run_at=row.next_run_at)
        records.write_history(self._db)
        self._presence.ended(row)
        self._report(row, reason)
        self._publish()
        return row

    def _row(self, begun: ledger.Open, cycle: Cycle | None, status: Status, reason: str) -> Row:
        plan, now = begun.plan, clock.now()
        output = None if cycle is None else artifacts.output_path(self._folder(cycle))
        result = None if cycle is None else cycle.result
        ran = result is not None and (result.exit_code is not None or result.signal is not None)
        records.fill_log(plan.log_path, output=output, otherwise="" if ran else reason)
        return Row(
            timestamp=now,
            started_at=begun.started_at,
            ended_at=now,
            duration_seconds=round(max(0.0, (now - begun.started_at).total_seconds()), 3),
            iteration=begun.iteration,
            mode=plan.mode,
            goal=plan.goal,
            status=status,
            return_code=None if result is None else result.exit_code,
            signal=None if result is None else result.signal,
            prerequisites=plan.prerequisites,
            archive_created=False,
            archive_path=None,
            stderr_tail=tail(plan.log_path, _TAIL),
            log_path=plan.log_path,
            cycle=None if cycle is None else cycle.cycle,
            cap_writes=plan.cap_writes,
            next_run_at=None,
        )

    def _folder(self, cycle: Cycle) -> str:
        return artifacts.cycle_dir(self._kernel.settings.cycles_dir, cycle.cycle)

    def _is_resumed(self, status: Status, failures: int) -> bool:
        """Tell whether the wait leads to a run: by this loop or, after a failure below the limit, by the next start."""
        code = self._exit_after(status, failures)
        return code is None or (status in FAILURES and code is not Exit.FAILURE_LIMIT)

    def _report(self, row: Row, reason: str) -> None:
        failed = row.status in FAILURES
        message = f"iteration {row.iteration} {row.status}{f': {reason}' if failed else ''}"
        priority = Priority.WARNING if failed else Priority.INFO
        log(Event.LOOP_ITERATED, message, priority=priority, iteration=row.iteration, status=row.status, cycle=row.cycle)
        past = ledger.past(self._db)
        if past.stale and row.cycle is not None:
            told = f"no new archive in {past.without_archive} iterations; the newest is {row.archive_path or 'none'}"
            log(Event.LOOP_STALE, told, priority=Priority.CRITICAL, iterations=past.without_archive)

    def _publish(self) -> None:
        """Bring the files for readers up to the store; where no timer ticks, nobody else does. No reason to fail."""
        try:
            self._kernel.publish()
        except KlorosError as error:
            log(Event.LOOP_ITERATED, f"the metrics are not current: {error.message}", priority=Priority.WARNING)


def _reason_of(cycle: Cycle) -> str:
    return "" if cycle.result is None else cycle.result.reason
