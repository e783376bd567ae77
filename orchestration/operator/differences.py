"""How differences between two sets of parameters are written, for people; `version.difference` writes them as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestration.operator.screen import Screen

if TYPE_CHECKING:
    from orchestration.baseline.version import Change
    from orchestration.promotions.promotion import Number


def table(screen: Screen, found: Iterable[Change]) -> list[str]:
    """Write a row for each parameter that differs; none when none does."""
    from orchestration.promotions.judgement import percent

    rows = [
        (one.name, _before(one.before), _after(one.after), "" if one.relative is None else percent(one.relative))
        for one in found
    ]
    return screen.table(("PARAMETER", "BEFORE", "AFTER", "CHANGE"), rows) if rows else []


def told(found: Iterable[Change]) -> str:
    """Write all of them in one line: `lr 0.01 → 0.02, batch_size new → 8`."""
    return ", ".join(f"{one.name} {_before(one.before)} → {_after(one.after)}" for one in found) or "no change"


def _before(value: Number | None) -> str:
    return "new" if value is None else str(value)


def _after(value: Number | None) -> str:
    return "removed" if value is None else str(value)
