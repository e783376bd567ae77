"""Reads the promotions that wait, and those answered last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.errors import KlorosError
from orchestration.promotions import ledger
from orchestration.promotions.scan import scan_unacked, stem_of
from orchestration.pulse.records.names import shown
from orchestration.pulse.views import MOST_ROWS, PromotionRow, PromotionsView
from orchestration.store.port import Database

if TYPE_CHECKING:
    from orchestration.settings import Settings


def promotions_view(settings: Settings, db: Database, *, answered: int = 100) -> PromotionsView:
    """Return the promotions without an answer, and so many that have one (at most MOST_ROWS)."""
    unreadable, names = "", list[str]()
    try:
        scan = scan_unacked(db, promotions_dir=settings.promotions_dir, acks_dir=settings.acks_dir, remember=False)
        names = [*scan.parked, *scan.waiting]
    except KlorosError as fault:
        unreadable = str(fault)
    known = ledger.known(db, [stem_of(name) for name in names])
    waiting = [_promotion(known.get(stem_of(name)), stem_of(name)) for name in names]
    waiting.sort(key=lambda one: (one.first_seen_at is None, one.first_seen_at, one.stem))
    limit = max(0, min(answered, MOST_ROWS))
    return PromotionsView(
        folder=settings.promotions_dir,
        waiting=tuple(waiting[:MOST_ROWS]),
        omitted=max(0, len(waiting) - MOST_ROWS),
        answered=tuple(_promotion(one, one.stem) for one in ledger.answered(db, limit=limit)),
        totals={str(state): number for state, number in ledger.counts(db).items()},
        unreadable=unreadable,
    )


def _promotion(known: ledger.Remembered | None, stem: str) -> PromotionRow:
    if known is not None:
        return PromotionRow(**{**known._asdict(), "state": str(known.state)})
    return PromotionRow(
        stem=shown(stem),
        promotion_id="",
        state="new",
        fitness=None,
        failures=0,
        reason="no tick has taken it in yet",
        first_seen_at=None,
        changed_at=None,
        cycle=None,
    )
