"""How evidence is worded. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta


def utc(instant: datetime | None) -> str:
    """Write an instant in UTC, to the second."""
    return "an unknown time" if instant is None else f"{instant:%Y-%m-%d %H:%M:%SZ}"


def span(length: timedelta) -> str:
    """Write a length of time in the unit that fits it: 8 s, 90 s, 15 min, 12 h, 3 d."""
    seconds = length.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def count(number: int, what: str) -> str:
    """Write a number of things: 1 message, 3 messages."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
