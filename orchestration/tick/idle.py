"""Whether it is time to reflect: nothing has run for the interval, nothing is about to, and the host is idle.

Reads, changes nothing. Imported when the observer's rules are asked, so not by a quiet tick; what costs time (`nvidia-smi`)
is asked last, and in no transaction.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from orchestration.cycles import ledger
from orchestration.host import load
from orchestration.host.journal import Event, Priority, log
from orchestration.reflection import digest
from orchestration.store.instants import from_text, to_text
from orchestration.tick.kernel import Kernel
from orchestration.tick.observe import MAINTENANCE_FILE, is_done
from orchestration.tick.observer_rules import Firing, span

REFLECTION: Final = "idle_reflection"
PRIORITY: Final = 0
_SOON: Final = timedelta(minutes=5)  # until we look again when something holds a reflection that is due


class Idle(NamedTuple):
    """A reflection to ask for, if it is time, and when to look again; None: never."""

    firing: Firing | None
    again_at: datetime | None


def look(kernel: Kernel) -> Idle:
    """Tell whether a reflection is due."""
    interval, now = kernel.settings.reflection.interval, kernel.now()
    if not interval:
        return Idle(None, None)
    (row,) = kernel.db.rows("observer.idle", now=to_text(now))
    last = kernel.db.rows("observer.last_of", rule=REFLECTION, now=to_text(now))
    ran = [str(at) for at in (row["ended_at"] or row["began_at"], last[0]["at"] if last else None) if at is not None]
    since = min(from_text(max(ran)), now) if ran else now
    if now < since + interval:
        return Idle(None, since + interval)
    if row["active"]:
        return Idle(None, now + interval)
    held = _held(kernel, now, waiting=bool(row["promotions"] or row["intents"]))
    if held:
        message = f"nothing has run since {since:%H:%M:%SZ}, and no reflection: {held}"
        log(Event.REFLECTION_HELD, message, priority=Priority.DEBUG)
        return Idle(None, now + _SOON)
    data: dict[str, object] = {**digest.take(kernel.db).as_data()}
    if last and json.loads(str(last[0]["evidence"])) == data:
        told = from_text(str(last[0]["at"])) + kernel.settings.intents.dedup_within
        if now < told:
            return Idle(None, told)
    reason = f"nothing has run for {span(interval)}, and the host is idle"
    return Idle(Firing(REFLECTION, "", REFLECTION, PRIORITY, reason, data), now + interval)


def _held(kernel: Kernel, now: datetime, *, waiting: bool) -> str:
    """Say what comes before a reflection; empty when nothing does."""
    limits = kernel.settings.reflection
    if os.path.exists(kernel.path(MAINTENANCE_FILE)):
        return "the file maintenance_mode exists"
    if waiting:
        return "promotions or intents wait"
    window = kernel.window.containing(now)
    if window is not None and not is_done(kernel, window, ledger.of_date(kernel.db, window.date)):
        return f"{window.date} has no PHASE yet, and its window is open"
    opens = kernel.window.next_after(now).opens
    if opens - now < limits.timeout:
        return f"the PHASE window opens {opens:%H:%M:%SZ}"
    return load.busy(max_pressure=limits.max_pressure, max_load=limits.max_load, max_gpu=limits.max_gpu)
