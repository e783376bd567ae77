"""Reads what the bridge last told of its threads (`bridge/telling.py`), and judges nothing."""

from __future__ import annotations

import json
from typing import Any, Final

from orchestration.pulse.loop_health import AwaitedReader, ParticipantLine, ThreadLine, Threads
from orchestration.store.instants import from_text, from_text_or_none
from orchestration.store.port import Database

SHOWN: Final = "bridge.shown"


def read(db: Database) -> Threads | None:
    """Return how threads stood then; None when the bridge never told of any."""
    for row in db.rows("facts.get", name=SHOWN):
        return _threads(json.loads(str(row["value"])))
    return None


def _threads(told: dict[str, Any]) -> Threads:
    return Threads(
        told_at=from_text(told["at"]),
        serving=told["serving"],
        totals=told["totals"],
        unread=told["unread"],
        escalations=told["escalations"],
        behind=told["behind"],
        waits=tuple(AwaitedReader(**{**one, "since": from_text(one["since"])}) for one in told["waits"]),
        lines=tuple(map(_line, told["threads"])),
    )


def _line(told: dict[str, Any]) -> ThreadLine:
    participants = tuple(
        ParticipantLine(**{**one, "heartbeat_at": from_text_or_none(one["heartbeat_at"]), "session": one["session"] or ""})
        for one in told["participants"]
    )
    return ThreadLine(**{**told, "updated_at": from_text(told["updated_at"]), "participants": participants})
