"""The audit's hash chains: every row carries a SHA-256 of itself and of the row before it.

Whoever changes, removes or slips in a row must work every later hash of that chain out anew, and change the head that
stands with the thread or workspace; heads kept elsewhere show even that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from pydantic_core import to_json

Column: TypeAlias = str | int | float | bool | None

START: Final = "0" * 64
"""What the first row of a chain follows."""
_hashed: Final = itemgetter(
    "chain",
    "link",
    "at",
    "workspace_id",
    "actor",
    "role",
    "request_id",
    "operation",
    "thread_id",
    "outcome",
    "rule",
    "state_before",
    "state_after",
)


class Head(NamedTuple):
    """The last row of a chain: its number, from 1, and hash."""

    links: int = 0
    sha256: str = START


def digest(row: Mapping[str, Column], previous: str) -> str:
    """Return the hash of an audit row, as it is stored, after the row with the hash `previous`."""
    return hashlib.sha256(to_json([previous, *_hashed(row)])).hexdigest()


def workspace_chain(workspace_id: str) -> str:
    """Return the name of the chain of what belongs to no thread."""
    return f"workspace:{workspace_id}"
