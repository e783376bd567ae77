"""One thing that a rollback or an installation meets, and what becomes of it."""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """One thing that a rollback meets, and what becomes of it."""

    kind: str  # unit, file, version, store, settings, state, user, packages
    name: str
    action: str  # remove, restore, leave, keep, done
    why: str = ""
