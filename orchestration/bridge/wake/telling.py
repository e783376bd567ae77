"""Tells ticks and pages how waking stands: two facts and the counters, in the `kloros.db` of this host.

As `bridge/telling.py` does for threads: a tick judges by one row and imports nothing of waking, and a supervisor that fell
silent is seen by its own last word. Counters are of this host's supervisor; what they miss when it is killed between an
attempt and its word is in the rows of the attempts.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from orchestration.bridge.wake import signs
from orchestration.bridge.wake.state import Outcome, Wake
from orchestration.errors import KlorosError
from orchestration.host.journal import Event, Priority, log
from orchestration.store import counters
from orchestration.store.instants import to_text
from orchestration.store.sqlite import SqliteDatabase

SIGNS: Final = "wake.signs"
SHOWN: Final = "wake.shown"
LATENCY_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Counted:
    """What has happened since it was last told."""

    def __init__(self) -> None:
        self.attempts: Counter[Outcome] = Counter()
        self.triggers: Counter[Outcome] = Counter()
        self.passes: Counter[str] = Counter()
        self.deferrals = 0
        self.latencies: list[float] = []
        """Seconds from message, or wish, to the first attempt."""

    def __bool__(self) -> bool:
        return bool(self.attempts or self.triggers or self.deferrals or self.latencies)


class Teller:
    """Writes the facts and counters of one supervisor."""

    def __init__(self, path: str, *, holder: str) -> None:
        """Take the path of the host's store, made by then, and what the supervisor calls itself."""
        self._path = path
        self._holder = holder

    def tell(self, wakes: Sequence[Wake], counted: Counted, now: datetime, *, serving: bool = True) -> bool:
        """Tell it; False when it can't be told now, and then what was counted is to be kept. Blocks."""
        head = {"at": to_text(now), "serving": serving}
        judged = {**head, **signs.signs(wakes, now)}
        shown = {**head, "holder": self._holder, **signs.shown(wakes, now)}
        return self._write(judged, shown, counted)

    def end(self, now: datetime) -> None:
        """Tell that nobody goes on telling, and that this is no fault. What it told last stands."""
        if not os.path.exists(self._path):
            return
        with_end = {"at": to_text(now), "serving": False}
        try:
            database = SqliteDatabase(self._path)
            try:
                with database.transaction():
                    for name in (SIGNS, SHOWN):
                        for row in database.rows("facts.get", name=name):
                            told = json.dumps({**json.loads(str(row["value"])), **with_end})
                            database.run("facts.set", name=name, value=told)
            finally:
                database.close()
        except KlorosError as error:
            _log(error)

    def _write(self, judged: dict[str, Any], shown: dict[str, Any], counted: Counted) -> bool:
        if not os.path.exists(self._path):
            return False
        try:
            database = SqliteDatabase(self._path)
            try:
                with database.transaction():
                    database.run("facts.set", name=SIGNS, value=json.dumps(judged))
                    database.run("facts.set", name=SHOWN, value=json.dumps(shown))
                    _count(database, counted)
            finally:
                database.close()
        except KlorosError as error:
            _log(error)
            return False
        return True


def _count(database: SqliteDatabase, counted: Counted) -> None:
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


def _log(error: KlorosError) -> None:
    log(Event.SUPERVISOR_FAILED, f"how waking stands can't be told: {error.message}", priority=Priority.WARNING)
