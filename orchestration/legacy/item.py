"""One thing of the older orchestrator, what becomes of it here, and what there is to do for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from orchestration.baseline.version import Provenance
from orchestration.legacy.tree import Found
from orchestration.promotions.promotion import Number
from orchestration.tick.calendar import PhaseDate


class Kind(StrEnum):
    """What it is."""

    ACK = "ack"
    VERSION = "version"  # of the baseline
    EPOCH = "epoch"
    SIGNAL = "signal"
    INTENT = "intent"


class Fate(StrEnum):
    """What becomes of it."""

    TO_TAKE_OVER = "to_take_over"
    TAKEN_OVER = "taken_over"
    ALREADY_THERE = "already_there"
    REFUSED = "refused"


class Item(NamedTuple):
    """One thing."""

    kind: Kind
    name: str
    fate: Fate
    detail: str = ""  # the reason when refused, else what is worth knowing


class Copy(NamedTuple):
    """A file to be made here, as it is there."""

    path: str
    data: bytes
    mode: int
    changed_at: float  # seconds since 1970: its age counts here too


class Draft(NamedTuple):
    """A version of the baseline to be added to the chain."""

    parameters: Mapping[str, Number]
    provenance: Provenance
    promotions: tuple[str, ...]


Work: TypeAlias = Copy | Draft | PhaseDate


class Step(NamedTuple):
    """An item, and what there is to do for it: nothing when it is there or refused."""

    item: Item
    work: Work | None = None


def refused(kind: Kind, name: str, reason: str) -> Step:
    """Make the step of what is not taken over."""
    return Step(Item(kind, name, Fate.REFUSED, reason))


def there(kind: Kind, name: str, detail: str = "") -> Step:
    """Make the step of what is here."""
    return Step(Item(kind, name, Fate.ALREADY_THERE, detail))


def taking(kind: Kind, name: str, work: Work, detail: str = "") -> Step:
    """Make the step of what is to be taken over."""
    return Step(Item(kind, name, Fate.TO_TAKE_OVER, detail), work)


def copying(kind: Kind, found: Found, folder: str, mode: int, detail: str = "") -> Step:
    """Plan the copy of a file into a folder of ours, under its own name; another file of that name stays."""
    path = os.path.join(folder, found.name)
    try:
        with open(path, "rb") as file:
            same = file.read(len(found.data) + 1) == found.data
    except FileNotFoundError:
        return taking(kind, found.name, Copy(path, found.data, mode, found.changed_at), detail)
    except OSError as error:
        return refused(kind, found.name, f"{path} can't be read: {error.strerror}")
    return there(kind, found.name) if same else refused(kind, found.name, f"another file of this name is here: {path}")
