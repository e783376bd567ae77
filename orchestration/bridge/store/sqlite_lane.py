"""The lane of the SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from orchestration.bridge.store import rows
from orchestration.bridge.store.batch import Batch
from orchestration.bridge.store.lane import Lane, LostOnTheWay, Write
from orchestration.bridge.store.lookups import Clock, Waiting, unavailable
from orchestration.bridge.store.recent import RecentRates
from orchestration.bridge.store.sqlite_beside import Beside, Gone
from orchestration.bridge.store.sqlite_file import OF_CONTENT
from orchestration.bridge.store.sqlite_locked import Locked
from orchestration.bridge.store.sqlite_process import WRITTEN_AFTER_OTHERS, framed

Lists: TypeAlias = dict[str, list[rows.Row]]
_QUICK: Final = 0.002
"""Where commits take longer than that, the loop makes none."""
_CROWD: Final = 1.25
"""From how many to a commit on, in the mean of the last few, the way to another process and back is worth its while."""
_COMMITS_AN_UPKEEP: Final = 300
"""Of the loop's own: some ten pages each, which together are less than SQLite lets the log grow to."""


class SqliteLane(Lane[Lists]):
    """A change that comes alone is written by the loop itself, in microseconds; many, or what takes long, beside it.

    Statements and commits of a thread would wait for Python's lock at every step, and the loop for theirs; a process writes
    while the loop answers those before and plans those after. What rests on more than the last commits left is a thread's.
    """

    def __init__(self, path: str, clock: Clock, announce: Callable[[dict[str, int]], None]) -> None:
        super().__init__(clock, RecentRates())
        self._announce = announce
        self._locked = Locked(path, clock)
        self._beside = Beside(path)
        self._wrote = ""
        """Who has made the last commit of ours: what the other then sees of others may be that."""
        self._crowd = 1.0
        self._since_upkeep = 0
        self._sent: Write[Lists] | None = None
        """What follows on the one under way, where it is on its way already."""
        self._failures: list[tuple[Write[Lists], Exception]] = []

    async def close(self) -> None:
        """Commit what waits, and let go of the file."""
        await self.finish()
        await self._beside.close()
        await self._locked.close()

    @property
    def _is_open(self) -> bool:
        return self._locked.is_open and (self._beside.is_up or self._locked.usually < _QUICK)

    @property
    def _goes_beside(self) -> bool:
        return self._crowd > _CROWD or self._locked.usually >= _QUICK

    def _start(self) -> None:
        """Begin after this turn of the loop, so that what has come in with it is not committed apart; where changes came
        together, when those that were just answered have asked again: three turns later, for their answers go out in one,
        their requests come in in the next and reach this place in the third.
        """
        if self._together > 1:
            self._loop.call_soon(self._loop.call_soon, self._loop.call_soon, self._begin_together)
        else:
            self._loop.call_soon(self._begin_together)

    def _told(self, planned: Batch) -> Lists:
        return planned.rows()

    def _write(self, write: Write[Lists]) -> None:
        if write is self._sent or (self._goes_beside and self._beside.is_up):
            super()._write(write)
            return
        self._together = len(write.batch)
        try:
            self._locked.write(write.told)
        except Exception as error:
            self._failed(write, error)
            return
        self._settle(write, None)

    def _go_on_after(self, write: Write[Lists], answer: Any) -> None:
        if answer is None:  # the loop has written it: what it has left is known from now on
            self._remember(write.batch, write.planned)
        super()._go_on_after(write, answer)

    def _ask(self, write: Write[Lists]) -> None:
        if write is not self._sent:
            self._beside.ask(framed(write.told), partial(self._heard, write))
        self._sent = None

    def _send_ahead(self, following: Write[Lists]) -> None:
        """Have it written without a word of ours in between; should the one before not be, it is refused."""
        self._beside.ask(framed(following.told, rests=True), partial(self._heard, following))
        self._sent = following

    def _heard(self, write: Write[Lists], answer: bytes, error: Exception | None) -> None:
        if error is None:
            self._answered(write, answer, None)
            return
        self._failures.append((write, LostOnTheWay(write.planned, error) if isinstance(error, Gone) else error))
        if self._sent in (None, write):  # what was sent on top of it is heard of next
            self._see_to_failures()

    def _see_to_failures(self) -> None:
        """Have all that was sent and not written seen to, in its order."""
        failures, self._failures = self._failures, []
        self._sent = self._under_way = self._next = None
        for write, _ in failures:
            self._recent.forget(waiting.ask for waiting in write.batch)
        self._task = self._loop.create_task(self._work_through(failures))

    async def _work_through(self, failures: list[tuple[Write[Lists], Exception]]) -> None:
        for write, error in failures:
            await self._carry_out(write.batch, error)
        self._go_on()

    @property
    def _waited(self) -> float:
        return self._beside.waited

    async def _committed(self, batch: list[Waiting], failed: Exception | None) -> Batch:
        lost = failed.planned if isinstance(failed, LostOnTheWay) else None
        return await self._locked.committed(batch, lost, first=self._beside.end if lost is not None else None)

    def _tell(self, batch: list[Waiting], planned: Batch) -> None:
        super()._tell(batch, planned)
        self._crowd += (len(batch) - self._crowd) / 8
        if self._goes_beside:
            self._beside.start()

    def _note(self, planned: Batch, answer: Any) -> None:
        if answer is None:
            who, others = "the bridge", self._locked.others_wrote
            self._since_upkeep += 1
        else:
            who, others = "the process", answer == WRITTEN_AFTER_OTHERS
        if others and self._wrote == who:  # who else writes may count as well
            self._rates.clear()
        self._wrote = who
        self._rates.keep(planned.known.rates)
        self._announce(planned.news)

    def _go_on(self) -> None:
        if self._since_upkeep < _COMMITS_AN_UPKEEP:
            super()._go_on()
        else:
            self._since_upkeep = 0
            self._task = self._loop.create_task(self._go_on_after_upkeep())

    async def _go_on_after_upkeep(self) -> None:
        await self._locked.upkeep()
        super()._go_on()

    def _parts(self, batch: list[Waiting], error: Exception) -> list[list[Waiting]]:
        return [batch] if _is_of_the_store(error) else [[waiting] for waiting in batch]

    def _as_refusal(self, error: Exception) -> Exception:
        return unavailable(error) if _is_of_the_store(error) else error


def _is_of_the_store(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and not isinstance(error, OF_CONTENT)
