"""How an instant is written in the store: UTC, ISO 8601, microseconds, a fixed width of 27 characters.

A fixed width sorts as text in the order of time, and an operator can read it in the `sqlite3` shell.
"""

from __future__ import annotations

from datetime import UTC, datetime


def to_text(instant: datetime) -> str:
    """Write an aware datetime as `2026-11-21T03:00:00.000000Z`.

    Raises:
        ValueError: the datetime is naive.
    """
    if instant.tzinfo is None:
        raise ValueError(f"naive datetime {instant!r} has no instant")
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_text(text: str) -> datetime:
    """Read what `to_text` wrote, as an aware UTC datetime.

    Raises:
        ValueError: the text is not an ISO 8601 instant.
    """
    return datetime.fromisoformat(text)


def from_text_or_none(text: str | None) -> datetime | None:
    """Read a column that may be empty."""
    return None if text is None else datetime.fromisoformat(text)
