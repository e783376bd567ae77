"""Reads `loop_health`, the document that every view of Pulse is made from: from the store, or from bare cycle folders."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from orchestration.pulse.loop_health import LoopHealth
from orchestration.store.port import Database

if TYPE_CHECKING:
    from orchestration.settings import Settings


def survey(
    settings: Settings, db: Database, now: datetime, *, boot_id: str, cycles: int = 50, failures: int = 5
) -> LoopHealth:
    """Read how the loop stands at an instant (aware UTC). Changes nothing; one consistent look.

    Args:
        boot_id: of the host now. cycles, failures: at most so many of the newest.
    """
    raise NotImplementedError


def survey_tree(folder: str, now: datetime) -> LoopHealth:
    """Read a tree of bare `cycle_NNNNN` folders, with no store; a missing or damaged manifest is told, never raised.

    Raises:
        Unreadable: the folder itself can't be read.
    """
    raise NotImplementedError
