"""Reads one tick, as it was told then."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

from orchestration.pulse.lines import cycle_line, tick_line
from orchestration.pulse.views import LONGEST_TEXT, TickDetail
from orchestration.store.port import Database
from orchestration.tick import history

if TYPE_CHECKING:
    from orchestration.tick.history import Tick

_NUMBER: Final = re.compile(r"[0-9]{1,18}")


def tick_detail(db: Database, name: str) -> TickDetail | None:
    """Return one tick by its id or its number as text, or None."""
    if len(name) > LONGEST_TEXT or not ("-" in name or _NUMBER.fullmatch(name)):
        return None
    with db.transaction(looking=True):
        tick = history.get(db, name)
        if tick is None:
            return None
        (near,) = db.rows("records.neighbours", tick=tick.tick)
        rows = db.rows("records.line", cycle=tick.cycle)
    return TickDetail(
        tick=tick_line(tick),
        ended_at=tick.ended_at,
        boot_id=tick.boot_id,
        blocker=tick.blocker or "",
        counted=_counted(tick),
        cycle=cycle_line(rows[0]) if rows else None,
        previous=cast("int | None", near["previous"]),
        following=cast("int | None", near["following"]),
    )


def _counted(tick: Tick) -> tuple[int, ...]:
    return tuple(position for position, (_, reason, _) in enumerate(tick.findings) if reason in tick.reasons)
