"""A lane: changes that are written one transaction after the other, the next planned while the one before is written."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from orchestration.bridge.store.awake import AWAKE
from orchestration.bridge.store.batch import Batch, Outcome
from orchestration.bridge.store.lookups import Clock, Waiting, planned_together, unavailable
from orchestration.bridge.store.recent import Recent, RecentRates

_MOST_TOGETHER = 512
_ENOUGH_FOR_TWO = 8
_ANSWERED_IN = 90e-6
"""Seconds of ours for one change, over HTTP: to take it in, to plan it, and to answer."""
Told = TypeVar("Told")
"""How an engine is told to write a batch."""


class Write(NamedTuple, Generic[Told]):
    """A batch that is written at once, if what it was planned on is so; else nothing is written."""

    batch: list[Waiting]
    planned: Batch
    told: Told


class LostOnTheWay(Exception):
    """Who was to write a commit has gone with it under way."""

    def __init__(self, planned: Batch, error: Exception) -> None:
        super().__init__()
        self.planned, self.error = planned, error


class Lane(ABC, Generic[Told]):
    """Changes of some of the threads, one transaction after the other.

    A batch that rests on what the last commit left is written from where it came in, and settled where the answer arrives:
    no task runs for it. Whatever else it takes, locks above all, is the work of a task.

    While one batch is written beside us, the next is planned on what that one is going to leave, and written as soon as
    that is so. Until then nobody is told anything of it; when the first fails, the next is planned anew. Where writes are
    slow, what waits is left to be planned and written together.
    """

    def __init__(self, clock: Clock, rates: RecentRates) -> None:
        self._waiting: list[Waiting] = []
        self.commits = self.changes = 0
        self._clock = clock
        self._rates = rates
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._together = 1
        """How many shared the last commit."""
        self._task: asyncio.Task[None] | None = None
        self._recent = Recent()
        self._under_way: Write[Told] | None = None
        self._next: Write[Told] | None = None
        """Rests on the one under way; there is none without it."""
        self._looks_ahead = False
        """What follows on the one under way is planned already, or about to be, or can't be."""
        self._write_takes = 1.0
        """Seconds, by the quickest of the last writes: of most, the answer lay there until the event loop came to it."""

    def take(self, waiting: Waiting) -> None:
        if self._closing:
            raise unavailable(None)
        self._waiting.append(waiting)
        if self._idle.is_set():
            self._idle.clear()
            self._start()
        else:
            self._look_ahead()

    @property
    def queued(self) -> int:
        """How many changes wait for a commit that is not under way yet."""
        return len(self._waiting) + (len(self._next.batch) if self._next is not None else 0)

    async def finish(self) -> None:
        """Take no more, and return when what was taken is done."""
        self._closing = True
        await self._idle.wait()

    # --- an engine's part --------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def _is_open(self) -> bool:
        """Tell whether what was planned on what is known can be written."""

    @abstractmethod
    def _told(self, planned: Batch) -> Told:
        """Return what has a batch written if what it was planned on is so; else nothing is to be written."""

    @abstractmethod
    def _ask(self, write: Write[Told]) -> None:
        """Have it written; `_answered` follows once.

        Raises:
            Exception: it is not written, or nobody can tell (`LostOnTheWay`).
        """

    @abstractmethod
    def _send_ahead(self, following: Write[Told]) -> None:
        """Have it written after the one under way already, where the engine takes two; `_ask` follows all the same."""

    @property
    @abstractmethod
    def _waited(self) -> float:
        """Seconds that the write which was heard of last has taken so far."""

    @abstractmethod
    async def _committed(self, batch: list[Waiting], failed: Exception | None) -> Batch:
        """Commit a batch on what is so, found out under lock.

        Args:
            failed: what became of writing it at once.

        Raises:
            Exception: nothing of it was written, or nobody can tell.
        """

    @abstractmethod
    def _note(self, planned: Batch, answer: Any) -> None:
        """Take note of a commit: those who wait for news, and how often agents have posted by now.

        Args:
            answer: the engine's, as it was given to `_answered`; None where `_committed` has done it.
        """

    @abstractmethod
    def _parts(self, batch: list[Waiting], error: Exception) -> list[list[Waiting]]:
        """Return the parts of a batch that failed which may do better each for itself; the batch alone where none may."""

    @abstractmethod
    def _as_refusal(self, error: Exception) -> Exception:
        """Return what those who asked are told of a failure."""

    # --- the order of things -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Begin anew: at once where changes come one by one; else when what comes together has come in."""
        if self._together > 1:  # those that were just answered ask again at once
            self._loop.call_soon(self._loop.call_soon, self._begin_together)
        else:
            self._begin()

    def _begin_together(self) -> None:
        """Begin with all, or with half of many: from then on one half is written while the other asks again."""
        many = len(self._waiting)
        halved = _ENOUGH_FOR_TWO <= many < _MOST_TOGETHER and self._should_overlap(many)
        self._begin(many // 2 if halved else _MOST_TOGETHER)

    def _should_overlap(self, many: int) -> bool:
        """Tell whether so many changes are better written in two batches than in one.

        They are where the second write takes less time than we do to answer and plan, which then goes on beside.
        """
        return self._write_takes < many * _ANSWERED_IN

    def _begin(self, most: int = _MOST_TOGETHER) -> None:
        batch, self._waiting = self._waiting[:most], self._waiting[most:]
        write = self._planned_at_once(batch, {})
        if write is not None:
            self._write(write)
        else:
            self._together = len(batch)
            self._task = self._loop.create_task(self._work(batch))

    def _planned_at_once(self, batch: list[Waiting], posted: Mapping[tuple[str, str], int]) -> Write[Told] | None:
        """Plan a batch on what is known; None when it takes more than that.

        Args:
            posted: how often agents post in the batch under way, which what is known of their rates leaves out.
        """
        asks = [waiting.ask for waiting in batch]
        known = self._recent.known(asks, self._rates, posted) if self._is_open else None
        self._recent.forget(asks)
        if known is None:
            return None
        planned = planned_together(batch, known, self._clock())
        if not planned.validated(asks):
            return None
        try:
            return Write(batch, planned, self._told(planned))
        except Exception:  # the task will meet it again, and see to it
            return None

    def _write(self, write: Write[Told]) -> None:
        """Write what was planned on what the last commit left: one round trip. The write proves what was known, or fails."""
        self._together = len(write.batch)
        try:
            self._ask(write)
        except Exception as error:
            self._failed(write, error)
            return
        self._under_way, self._looks_ahead = write, False
        self._remember(write.batch, write.planned)
        if self._waiting:
            self._look_ahead()
        elif len(write.batch) == 1 and self._write_takes < AWAKE:
            self._stay_awake(write)

    def _stay_awake(self, write: Write[Told]) -> None:
        """Keep the event loop from sleep while the answer to a change that came alone is due; it does all else as ever."""
        if self._under_way is write and self._waited < AWAKE:
            self._loop.call_soon(self._stay_awake, write)

    def _look_ahead(self) -> None:
        """Plan what waits on top of the batch under way, once what comes together has come in."""
        if self._under_way is not None and not self._looks_ahead:
            self._looks_ahead = True
            self._loop.call_soon(self._loop.call_soon, self._plan_next, self._under_way)

    def _plan_next(self, under_way: Write[Told]) -> None:
        if under_way is not self._under_way:  # it was answered meanwhile
            return
        if not self._should_overlap(len(under_way.batch) + len(self._waiting)):
            return
        batch = self._waiting[:_MOST_TOGETHER]
        self._next = self._planned_at_once(batch, under_way.planned.posted)
        if self._next is not None:
            del self._waiting[: len(batch)]
            self._send_ahead(self._next)

    def _answered(self, write: Write[Told], answer: Any, error: Exception | None) -> None:
        following, self._under_way, self._next = self._next, None, None
        self._write_takes = min(self._waited, self._write_takes * 17 / 16)
        if error is not None:
            if following is not None:  # it rests on what has not come about
                self._waiting[:0] = following.batch
            self._failed(write, error)
        elif following is not None:  # it is written while those who asked are told
            self._write(following)
            self._tell(write.batch, write.planned)
            self._note(write.planned, answer)
        else:
            self._settle(write, answer)

    def _settle(self, write: Write[Told], answer: Any) -> None:
        """Tell those who asked that it is written, and go on; when nobody waits, they answer their clients first."""
        self._tell(write.batch, write.planned)
        if self._waiting:
            self._go_on_after(write, answer)
        else:
            self._loop.call_soon(self._go_on_after, write, answer)

    def _failed(self, write: Write[Told], error: Exception) -> None:
        """Forget what it was to leave, and have a task see to it."""
        self._recent.forget(waiting.ask for waiting in write.batch)
        self._task = self._loop.create_task(self._work(write.batch, error))

    def _go_on_after(self, write: Write[Told], answer: Any) -> None:
        self._note(write.planned, answer)
        self._go_on()

    def _tell(self, batch: list[Waiting], planned: Batch) -> None:
        self.commits += 1
        self.changes += len(batch)
        _answer(batch, planned.outcomes)

    def _remember(self, batch: list[Waiting], planned: Batch) -> None:
        self._recent.remember(planned.known, [waiting.ask for waiting in batch])

    def _go_on(self) -> None:
        if not self._waiting:
            self._idle.set()
        elif self._should_overlap(self._together + len(self._waiting)):
            self._begin()
        else:  # those that were just answered join in
            self._start()

    async def _work(self, batch: list[Waiting], failed: Exception | None = None) -> None:
        await self._carry_out(batch, failed)
        self._go_on()

    async def _carry_out(self, batch: list[Waiting], failed: Exception | None = None) -> None:
        """Commit a batch; when one of it can't be written, or one thread is locked, the others are tried without it.

        Args:
            failed: what became of writing it at once.
        """
        try:
            planned = await self._committed(batch, failed)
        except Exception as error:
            parts = self._parts(batch, error)
            if len(parts) > 1:
                for part in parts:
                    await self._carry_out(part)
                return
            if isinstance(error, LostOnTheWay):
                error = error.error
            _answer(batch, [Outcome(None, self._as_refusal(error))] * len(batch))
        else:
            self._tell(batch, planned)
            self._note(planned, None)
            self._remember(batch, planned)


def _answer(batch: list[Waiting], outcomes: Iterable[Outcome[Any]]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if not waiting.future.done():  # who asked may have gone
            waiting.future.set_result(outcome)
