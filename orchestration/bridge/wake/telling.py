"""Tells ticks and pages how waking stands: two facts and the counters, in the `kloros.db` of this host.

As `bridge/telling.py` does for threads: a tick judges by one row and imports nothing of waking, and a supervisor that fell
silent is seen by its own last word. Counters are of this host's supervisor; what they miss when it is killed between an
attempt and its word is in the rows of the attempts.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from orchestration.bridge.refusal import Refused
from orchestration.bridge.wake import signs
from orchestration.bridge.wake.port import WakeStore
from orchestration.bridge.wake.state import Outcome, Status, Wake
from orchestration.errors import KlorosError
from orchestration.host.journal import Event, Priority, log
from orchestration.store import counters, opening
from orchestration.store.instants import from_text, to_text
from orchestration.store.port import Database

SIGNS: Final = "wake.signs"
SHOWN: Final = "wake.shown"
AGAIN_AFTER: Final = 60.0
"""Seconds after which what has not changed is told once more, as a sign of life."""
SOON: Final = 2.0
"""Least seconds between two tellings, whatever news there is."""
_NEWEST: Final = 300
LATENCY_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass
class Counted:
    """What has happened since it was last told."""

    attempts: Counter[Outcome] = field(default_factory=Counter)
    triggers: Counter[Outcome] = field(default_factory=Counter)
    passes: Counter[str] = field(default_factory=Counter)
    deferrals: int = 0
    latencies: list[float] = field(default_factory=list)
    """Seconds from message, or wish, to the first attempt."""

    def take(self) -> Counted:
        """Return what was counted, and begin anew."""
        taken, empty = replace(self), Counted()
        for one in fields(self):
            setattr(self, one.name, getattr(empty, one.name))
        return taken

    def put_back(self, taken: Counted) -> None:
        """Count what could not be told once more."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(taken, one.name))


class Teller:
    """Writes the facts and counters of one supervisor."""

    def __init__(self, place: opening.Place, *, holder: str) -> None:
        """Take where the host's store is, made by then, and what the supervisor calls itself."""
        self._place = place
        self._holder = holder

    def tell(self, wakes: Sequence[Wake], counted: Counted, now: datetime, *, serving: bool = True) -> bool:
        """Tell it; False when it can't be told now, and then what was counted is to be kept. Blocks."""
        head = {"at": to_text(now), "serving": serving}
        judged = {**head, **signs.signs(wakes, now)}
        shown = {**head, "holder": self._holder, **signs.shown(wakes, now)}
        return self._write(judged, shown, counted)

    def end(self, now: datetime) -> None:
        """Tell that nobody goes on telling, and that this is no fault. What it told last stands."""
        if not opening.is_made(self._place):
            return
        with_end = {"at": to_text(now), "serving": False}
        try:
            database = opening.open_at(self._place)
            try:
                with database.transaction():
                    for name in (SIGNS, SHOWN):
                        for row in database.rows("facts.get", name=name):
                            told = json.dumps({**json.loads(str(row["value"])), **with_end})
                            database.run("facts.set", name=name, value=told)
            finally:
                database.close()
        except KlorosError as error:
            self._log(error)

    def _write(self, judged: dict[str, Any], shown: dict[str, Any], counted: Counted) -> bool:
        if not opening.is_made(self._place):
            return False
        try:
            database = opening.open_at(self._place)
            try:
                with database.transaction():
                    database.run("facts.set", name=SIGNS, value=json.dumps(judged))
                    database.run("facts.set", name=SHOWN, value=json.dumps(shown))
                    _count(database, counted)
            finally:
                database.close()
        except KlorosError as error:
            self._log(error)
            return False
        return True

    def _log(self, error: KlorosError) -> None:
        if not self._place.url:  # there it is the supervisor's own store, whose outage is told already
            log(Event.SUPERVISOR_FAILED, f"how waking stands can't be told: {error.message}", priority=Priority.WARNING)


def _count(database: Database, counted: Counted) -> None:
    for outcome, many in counted.attempts.items():
        counters.count(database, "kloros_wake_attempts_total", many, result=outcome.value)
    for outcome, many in counted.triggers.items():
        counters.count(database, "kloros_wake_triggers_total", many, result=outcome.value)
    for result, many in counted.passes.items():
        counters.count(database, "kloros_supervisor_passes_total", many, result=result)
    if counted.deferrals:
        counters.count(database, "kloros_wake_deferrals_total", counted.deferrals)
    for seconds in counted.latencies:
        counters.observe(database, "kloros_wake_wait_duration_seconds", seconds, buckets=LATENCY_BUCKETS)


def last_word(place: opening.Place) -> tuple[bool, datetime] | None:
    """Return whether this host's supervisor goes on telling, and when it told last; None when none ever did."""
    if not opening.is_made(place):
        return None
    database = opening.open_at(place)
    try:
        for row in database.rows("facts.get", name=SIGNS):
            told = json.loads(str(row["value"]))
            return bool(told["serving"]), from_text(told["at"])
    finally:
        database.close()
    return None


class Reporter:
    """Tells now and then: soon after there is news, and once a minute as a sign of life."""

    def __init__(self, store: WakeStore, teller: Teller, *, now: Callable[[], datetime], clock: Callable[[], float]) -> None:
        """Take what it reads, and whom it tells. `clock`: see `claims.boottime`."""
        self._store = store
        self._teller = teller
        self._now = now
        self._clock = clock
        self._news = False
        self._told_at = -AGAIN_AFTER

    async def tell(self, counted: Counted, *, news: bool) -> None:
        """Tell, if it is time. See `supervisor.Telling`.

        Raises:
            Refused: the store is out of reach.
        """
        self._news |= news
        age = self._clock() - self._told_at
        if age < (SOON if self._news else AGAIN_AFTER):
            return
        if await self._write(counted, serving=True):
            self._told_at, self._news = self._clock(), False

    async def end(self, counted: Counted) -> None:
        """Tell how it stands at the end, and that nobody goes on telling."""
        with suppress(Refused):
            if await self._write(counted, serving=False):
                return
        await asyncio.to_thread(self._teller.end, self._now())

    async def _write(self, counted: Counted, *, serving: bool) -> bool:
        wakes = {one.trigger_id: one for one in await self._store.wakes(limit=_NEWEST)}
        for status in (Status.QUEUED, Status.CLAIMED):
            wakes |= {one.trigger_id: one for one in await self._store.wakes(status=status, limit=_NEWEST)}
        newest_first = sorted(wakes.values(), key=lambda one: one.created_at, reverse=True)
        taken = counted.take()
        tell = partial(self._teller.tell, newest_first, taken, self._now(), serving=serving)
        told = await asyncio.to_thread(tell)
        if not told:
            counted.put_back(taken)
        return told
