"""Reads the intents that wait, and those decided last."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, cast

from orchestration.pulse import metrics
from orchestration.pulse.asked import Asked, Reader
from orchestration.pulse.views import MOST_ROWS, IntentRow, IntentsView
from orchestration.store.instants import from_text
from orchestration.store.port import Database, Row

if TYPE_CHECKING:
    from orchestration.settings import Settings


def intents_view(settings: Settings, db: Database, *, decided: int = 100) -> IntentsView:
    """Return the intents that wait, and so many decided ones (at most MOST_ROWS)."""
    limit = max(0, min(decided, MOST_ROWS))
    values = metrics.read(db)
    totals = {labels[len('status="') : -1]: int(value) for (name, labels), value in values.items() if name == _INTENTS}
    folder = intents_dir(settings)
    reader = Reader(folder)
    return IntentsView(
        folder=folder,
        limit=settings.intents.max_pending,
        waiting=tuple(_waiting_intent(row, reader) for row in db.rows("intents.pending")[:MOST_ROWS]),
        decided=tuple(_decided_intent(row, reader) for row in db.rows("operator.intents_decided", limit=limit)),
        totals=dict(sorted(totals.items())),
    )


_INTENTS: Final = "kloros_intents_total"


def _waiting_intent(row: Row, reader: Reader) -> IntentRow:
    asked = reader.of(cast("str", row["name"]), cast("str", row["content_sha"]), "pending")
    return IntentRow(
        name=cast("str", row["name"]),
        intent_type=cast("str", row["intent_type"]),
        priority=cast("int", row["priority"]),
        status="pending",
        reason="",
        intent_reason=asked.reason,
        emitted_by=asked.emitted_by,
        seen_at=from_text(cast("str", row["seen_at"])),
        decided_at=None,
        cycle=None,
    )


def _decided_intent(row: Row, reader: Reader) -> IntentRow:
    asked = said(reader, row)
    return IntentRow(
        name=cast("str", row["name"]),
        intent_type=cast("str", row["intent_type"]),
        priority=cast("int", row["priority"]),
        status=cast("str", row["status"]),
        reason=cast("str", row["reason"]),
        intent_reason=asked.reason,
        emitted_by=asked.emitted_by,
        seen_at=from_text(cast("str", row["seen_at"])),
        decided_at=from_text(cast("str", row["decided_at"])),
        cycle=cast("int | None", row["cycle"]),
    )


def said(reader: Reader, row: Row) -> Asked:
    """Return what the file of a decided intent says."""
    return reader.of(cast("str", row["name"]), cast("str", row["content_sha"]), cast("str", row["status"]))


def intents_dir(settings: Settings) -> str:
    """Return the folder of the inbox."""
    return os.path.join(settings.state_dir, "intents")
