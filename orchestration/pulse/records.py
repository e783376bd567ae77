"""Reads the pages beside the first one: lists and single records, from the store and the folders it names."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from orchestration.pulse.views import (
    CalendarView,
    CycleDetail,
    CyclePage,
    CycleQuery,
    IntentsView,
    PromotionsView,
    TickDetail,
)
from orchestration.store.port import Database

if TYPE_CHECKING:
    from orchestration.settings import Settings


def cycle_page(db: Database, query: CycleQuery) -> CyclePage:
    """Return one page of the cycles asked for.

    Raises:
        Usage: a limit out of range, or a cursor of another query.
    """
    raise NotImplementedError


def cycle_detail(settings: Settings, db: Database, number: int) -> CycleDetail | None:
    """Return one cycle, or None when the number was never given."""
    raise NotImplementedError


def tick_detail(db: Database, name: str) -> TickDetail | None:
    """Return one tick by its id or its number as text, or None."""
    raise NotImplementedError


def promotions_view(settings: Settings, db: Database, *, answered: int = 100) -> PromotionsView:
    """Return the promotions without an answer, and so many that have one."""
    raise NotImplementedError


def intents_view(settings: Settings, db: Database, *, decided: int = 100) -> IntentsView:
    """Return the intents that wait, and so many decided ones."""
    raise NotImplementedError


def calendar_view(settings: Settings, db: Database, now: datetime, *, days: int = 30) -> CalendarView:
    """Return the newest local dates: the one open or next, and `days` before it."""
    raise NotImplementedError
