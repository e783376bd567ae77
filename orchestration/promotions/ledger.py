"""What the store remembers of promotions: the table `promotions`.

The ack file decides whether a promotion is answered (`scan`); this table adds what no file says: how often
cycles with it failed, that it is parked, and what we answered and why. Safe to apply twice: answers and
failures count once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, cast

from orchestration.promotions.state import PromotionState
from orchestration.store.instants import from_text, from_text_or_none, to_text
from orchestration.store.port import Database, Row


class Remembered(NamedTuple):
    """One promotion as the store remembers it."""

    stem: str
    promotion_id: str
    state: PromotionState
    failures: int  # failed cycles in a row
    fitness: float | None
    reason: str
    first_seen_at: datetime
    changed_at: datetime
    cycle: int | None  # the last one that failed with it or answered it


def see(db: Database, stem: str, *, promotion_id: str, fitness: float | None, at: datetime) -> None:
    """Remember a promotion that has no ack; changes nothing when nothing is new."""
    db.run("promotions.see", stem=stem, promotion_id=promotion_id, fitness=fitness, at=to_text(at))


def oldest(db: Database, stems: Iterable[str]) -> datetime | None:
    """Return when the oldest of these promotions was first seen (aware UTC); None when none of them is known."""
    (row,) = db.rows("promotions.oldest", stems=json.dumps(list(stems)))
    return from_text_or_none(cast("str | None", row["first_seen_at"]))


def fail(db: Database, stems: Iterable[str], *, cycle: int, reason: str, park_after: int, at: datetime) -> int:
    """Count a failed cycle against its promotions and park those with `park_after` (≥ 1) failures in a row.

    Counts one cycle once. Returns how many promotions were counted.
    """
    listed = json.dumps(sorted(stems))
    return db.run("promotions.fail", stems=listed, cycle=cycle, reason=reason, park_after=park_after, at=to_text(at))


def answer(
    db: Database,
    stem: str,
    *,
    promotion_id: str,
    accepted: bool,
    reason: str,
    fitness: float | None,
    cycle: int | None,
    at: datetime,
) -> bool:
    """Record that the promotion is answered; False when it was recorded before, so that it is counted once."""
    state = PromotionState.ACCEPTED if accepted else PromotionState.REJECTED
    changed = db.run(
        "promotions.answer",
        stem=stem,
        promotion_id=promotion_id,
        state=state.value,
        fitness=fitness,
        reason=reason,
        cycle=cycle,
        at=to_text(at),
    )
    return changed > 0


def retry(db: Database, stem: str, *, at: datetime) -> bool:
    """Let a parked promotion go again; False when it is not parked."""
    return db.run("promotions.retry", stem=stem, at=to_text(at)) > 0


def known(db: Database, stems: Iterable[str]) -> dict[str, Remembered]:
    """Return what is remembered of these stems."""
    rows = db.rows("promotions.known", stems=json.dumps(list(stems)))
    return {found.stem: found for found in map(_remembered, rows)}


def parked(db: Database) -> list[Remembered]:
    """Return every parked promotion, by stem."""
    return [_remembered(row) for row in db.rows("promotions.all_parked")]


def recent(db: Database, *, limit: int) -> list[Remembered]:
    """Return the promotions that changed last, newest first."""
    return [_remembered(row) for row in db.rows("promotions.recent", limit=limit)]


def answered(db: Database, *, limit: int) -> list[Remembered]:
    """Return the promotions that were answered last, newest first."""
    return [_remembered(row) for row in db.rows("promotions.answered", limit=limit)]


def counts(db: Database) -> dict[PromotionState, int]:
    """Count the remembered promotions by state; walks the whole table, so not for every tick."""
    rows = {cast(str, row["state"]): cast(int, row["promotions"]) for row in db.rows("promotions.counts")}
    return {state: rows.get(state.value, 0) for state in PromotionState}


def _remembered(row: Row) -> Remembered:
    return Remembered(
        stem=cast(str, row["stem"]),
        promotion_id=cast(str, row["promotion_id"]),
        state=PromotionState(cast(str, row["state"])),
        failures=cast(int, row["failures"]),
        fitness=cast("float | None", row["fitness"]),
        reason=cast(str, row["reason"]),
        first_seen_at=from_text(cast(str, row["first_seen_at"])),
        changed_at=from_text(cast(str, row["changed_at"])),
        cycle=cast("int | None", row["cycle"]),
    )
