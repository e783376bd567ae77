"""One thing that `klorosctl doctor` looked at."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Check(NamedTuple):
    """What was looked at, how it is, what was seen, and what to do about it."""

    name: str
    level: Level
    evidence: str
    advice: str = ""
