"""Reads what a supervisor last told of waking (`bridge/wake/telling.py`), and judges nothing."""

from __future__ import annotations

import json
from typing import Any, Final

from orchestration.pulse.loop_health import TriggerLine, Wakes
from orchestration.store.instants import from_text, from_text_or_none
from orchestration.store.port import Database

SHOWN: Final = "wake.shown"


def read(db: Database) -> Wakes | None:
    """Return how waking stood then; None when no supervisor of this host ever told."""
    for row in db.rows("facts.get", name=SHOWN):
        return _wakes(json.loads(str(row["value"])))
    return None


def _wakes(told: dict[str, Any]) -> Wakes:
    return Wakes(
        told_at=from_text(told["at"]),
        serving=told["serving"],
        holder=told["holder"],
        funnel=told["funnel"],
        open=told["open"],
        lines=tuple(map(_line, told["triggers"])),
    )


def _line(told: dict[str, Any]) -> TriggerLine:
    instants = {"created_at": from_text(told["created_at"]), "ended_at": from_text_or_none(told["ended_at"])}
    return TriggerLine(**{**told, **instants, "outcome": told["outcome"] or "", "code": told["code"] or ""})
