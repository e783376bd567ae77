"""Brings the files for people and other programs up to the store: `history.jsonl`, `latest.json`, the metrics.

They are copies. Whoever writes them reads the store inside the same transaction, which keeps others from it: a tick
that was turned away can't put an older copy over the one of the tick that ran meanwhile. A copy that a power cut takes
is made again a minute later, so none but the history is synced.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import TYPE_CHECKING

from orchestration.cycles import ledger
from orchestration.cycles.cycle import ACTIVE, Cycle
from orchestration.host import files
from orchestration.phase.window import Window
from orchestration.pulse import health, metrics, signs, textfile
from orchestration.pulse.health import Judgement, Mode
from orchestration.store.instants import to_text
from orchestration.store.port import Database
from orchestration.tick import history
from orchestration.tick.history import Tick

if TYPE_CHECKING:
    from orchestration.settings import Settings

_CYCLES_SHOWN = 5
NOTICES_SEEN = "notices.seen"
"""Fact: until when the notifier has nothing to do unless the causes change, and those that it saw (`notice_ledger.py`)."""


def publish(settings: Settings, db: Database, now: datetime) -> Judgement:
    """Bring every file for readers up to the store, as things stand now (aware UTC); return what this host has to tell.

    Raises:
        Unwritable: the state folder can't be written; a textfile that can't is only told.
    """
    history.mirror(db, os.path.join(settings.state_dir, "history.jsonl"))
    with db.transaction():
        values = metrics.read(db)
        scope = signs.scope(settings, db, values)
        seen = signs.read(settings, db, values, now, scope)
        before = signs.since(db)
        judgement = health.judge(seen, before)
        signs.remember(db, judgement, before)
        told = signs.told(judgement, elsewhere=seen.elsewhere)
        metrics.note_health(values, seen, told)
        _write_latest(settings, db, values, seen.mode, judgement)
        textfile.write(db, settings.textfile, metrics.exposition(values, more=signs.families(scope)))
    return told


def is_notice_due(db: Database, judgement: Judgement, now: datetime) -> bool:
    """Tell whether the notifier has something to do: the causes are others than it saw, or it asked for this time."""
    for row in db.rows("facts.get", name=NOTICES_SEEN):
        at, _, seen = str(row["value"]).partition(" ")
        return seen != causes(judgement) or at <= to_text(now)
    return bool(judgement.causes)


def causes(judgement: Judgement) -> str:
    """Write the causes of a verdict as one line that can be compared."""
    return " ".join([cause.condition for cause in judgement.causes])


def _write_latest(settings: Settings, db: Database, values: metrics.Values, mode: Mode, judgement: Judgement) -> None:
    for tick in history.recent(db, 1):
        content = json.dumps(latest(settings, tick, ledger.recent(db, _CYCLES_SHOWN), values, mode, judgement)) + "\n"
        files.replace(os.path.join(settings.state_dir, "latest.json"), content.encode(), mode=0o640, durable=False)


def latest(
    settings: Settings, tick: Tick, cycles: list[Cycle], values: metrics.Values, mode: Mode, judgement: Judgement
) -> dict[str, object]:
    """Describe how things stood after this tick, the store's newest; the form is in docs/reference/files.md."""
    return {
        "schema": "v1",
        **history.as_json(tick),
        **health.as_json(judgement),
        "mode": mode,
        "active_cycle": next((_cycle(cycle) for cycle in cycles if cycle.state in ACTIVE), None),
        "next_window": _next_window(settings, tick.ended_at),
        "queues": metrics.queues(values),
        "cycles": [_cycle(cycle) for cycle in cycles],
    }


def _next_window(settings: Settings, now: datetime) -> dict[str, object]:
    window = Window(settings.phase.window_opens, settings.phase.window_closes, settings.phase.time_zone).next_after(now)
    return {"date": window.date.isoformat(), "opens_at": to_text(window.opens), "closes_at": to_text(window.closes)}


def _cycle(cycle: Cycle) -> dict[str, object]:
    return {
        "cycle": cycle.cycle,
        "job": cycle.job,
        "state": cycle.state,
        "cause": cycle.origin.cause,
        "queued_at": to_text(cycle.queued_at),
        "started_at": cycle.started_at and to_text(cycle.started_at),
        "ended_at": cycle.ended_at and to_text(cycle.ended_at),
        "reason": "" if cycle.result is None else cycle.result.reason,
    }
