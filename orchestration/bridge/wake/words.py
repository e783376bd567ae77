"""How evidence is worded, and how what others wrote is made harmless in it. Pure."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta
from typing import Final

_GONE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_BREAKS: Final = frozenset("\n\u2028\u2029\x85")


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


def clean(words: str, *, lines: bool = True) -> str:
    """Take out every control, format and unassigned character; line breaks stay, as `\\n`, unless one line is wanted."""
    kept = (
        "\n" if one in _BREAKS else " " if one == "\t" else one for one in words.replace("\r\n", "\n").replace("\r", "\n")
    )
    plain = "".join(one for one in kept if one == "\n" or unicodedata.category(one) not in _GONE)
    return plain if lines else " ".join(plain.split())
