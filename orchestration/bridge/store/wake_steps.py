"""What the steps of a wake store ask an adapter for: one statement after the other, in one transaction."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias, TypeVar

from orchestration.bridge.state import Ask
from orchestration.bridge.store import rows
from orchestration.bridge.store.batch import Batch

_Answer = TypeVar("_Answer")


class Lost(Exception):
    """Somebody else was faster; nothing is to be written."""


class Statement(NamedTuple):
    """Give the rows of a named query; one of an adapter's own dialect has no area in its name."""

    query: str
    asked: Mapping[str, str | int | None]


class Known(NamedTuple):
    """Lock what an ask is about, and give what is known of it (`Loaded`)."""

    ask: Ask


class Written(NamedTuple):
    """Write what a batch has changed."""

    batch: Batch


Steps: TypeAlias = Generator[Statement | Known | Written, Any, _Answer]


def ask(query: str, /, **asked: str | int | None) -> Steps[list[Any]]:
    """Ask for one statement, and return its rows."""
    found: list[Any] = yield Statement(query, asked)
    return found


def server_time() -> Steps[datetime]:
    """Return the instant by the store's clock."""
    (row,) = yield from ask("now")
    return rows.instant(row["now"])
