"""Reads the versions of the baseline with their verdicts, and the entries of escrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestration.baseline import escrow_ledger, history
from orchestration.baseline.escrow import Status, document
from orchestration.baseline.version import Version, changes, difference, origin
from orchestration.pulse import parameters
from orchestration.pulse.document import baseline, tried

if TYPE_CHECKING:
    from orchestration.settings import Settings
    from orchestration.store.port import Database


def baseline_view(settings: Settings, db: Database, *, limit: int) -> dict[str, Any]:
    """Return the version in force, and so many versions, the newest first."""
    with db.transaction(looking=True):
        shown = parameters.in_force(settings, db)
        found = history.recent(db, limit + 1)
        known = {one.version: tried(one) for one in parameters.verdicts_since(db, found[-1].version if found else 0)}
    pairs = list(zip(found, [*found[1:], None], strict=False))[:limit]
    versions = [{**_line(one, before), "verdict": known.get(one.version)} for one, before in pairs]
    return {"in_force": None if shown is None else baseline(shown), "versions": versions}


def escrow_view(db: Database, *, limit: int) -> dict[str, Any]:
    """Return what waits, the oldest first, and so many of the newest entries that do not any more."""
    with db.transaction(looking=True):
        pending, newest = escrow_ledger.pending(db), escrow_ledger.recent(db, limit=limit)
    decided = [one for one in newest if one.status is not Status.PENDING]
    return {"pending": [document(one) for one in pending], "decided": [document(one) for one in decided]}


def _line(version: Version, before: Version | None) -> dict[str, Any]:
    changed = changes({} if before is None else before.parameters, version.parameters)
    return {**origin(version), "sha256": version.sha256, "changes": [difference(one) for one in changed]}
