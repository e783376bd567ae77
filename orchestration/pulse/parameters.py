"""Reads what stands of the accepted parameters: version in force, verdicts, what waits in escrow, advice to the last PHASE.

Each question is one look at an index, or at a bounded number of rows. What the *next* PHASE will be advised takes the whole
history (`klorosctl heuristics show`), so a page shows what the newest one was.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from orchestration.baseline import history, verdicts
from orchestration.baseline.version import changes
from orchestration.pulse.loop_health import UNDECIDED, Advice, Held, Parameters, Tried
from orchestration.store.instants import from_text, from_text_or_none
from orchestration.store.port import Database, Row

if TYPE_CHECKING:
    from orchestration.promotions.promotion import Number
    from orchestration.settings import Settings

MOST_HELD = 50
"""Entries of escrow in one document; a person decides on each."""


def held(db: Database) -> tuple[Held, ...]:
    """Return what waits for a person, the oldest first."""
    return tuple(map(_held, db.rows("survey.escrow", limit=MOST_HELD)))


def in_force(settings: Settings, db: Database) -> Parameters | None:
    """Return the version in force and the newest verdict; None before the first version."""
    version = history.newest(db)
    if version is None:
        return None
    last = next((_tried(row) for row in db.rows("survey.last_verdict")), None)
    known = last is not None and last.version == version.version
    needed = settings.validation.results
    before = history.get(db, version.version - 1)
    return Parameters(
        version=version,
        verdict=last.verdict if last and known else UNDECIDED,
        results=len(verdicts.compared(db, version, before, results=needed).after),
        needed=needed,
        last=last,
    )


def verdicts_since(db: Database, version: int) -> list[Tried]:
    """Return the verdicts on this version of the baseline and those after it."""
    return [_tried(row) for row in db.rows("survey.verdicts", version=version)]


def advice(db: Database) -> Advice | None:
    """Return what the newest PHASE was advised; None when it was given no hints."""
    for row in db.rows("survey.advice"):
        hints = json.loads(cast("str", row["value"]))
        return Advice(cycle=cast("int", row["cycle"]), phase_type=hints["phase_type"], rationale=hints["rationale"])
    return None


def _held(row: Row) -> Held:
    rollback = row["kind"] == "rollback"
    return Held(
        entry=cast("str", row["entry"]),
        subject=f"rollback to version {row['target']}" if rollback else cast("str", row["stem"]),
        changes=changes(_values(row, "before"), _values(row, "changes")),
        rule=cast("str", row["rule"]),
        emitted_by=cast("str", row["emitted_by"]),
        cycle=cast("int | None", row["cycle"]),
        since=from_text(cast("str", row["created_at"])),
        expires=from_text_or_none(cast("str | None", row["expires_at"])),
    )


def _values(row: Row, column: str) -> dict[str, Number]:
    """Return the parameters that have a value."""
    return {name: value for name, value in json.loads(cast("str", row[column])).items() if value is not None}


def _tried(row: Row) -> Tried:
    return Tried(
        version=cast("int", row["version"]),
        verdict=cast("str", row["verdict"]),
        before=tuple(json.loads(cast("str", row["before"]))),
        after=tuple(json.loads(cast("str", row["after"]))),
        change=cast("float", row["change"]),
        reason=cast("str", row["reason"]),
        at=from_text(cast("str", row["decided_at"])),
    )
