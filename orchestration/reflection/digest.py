"""The digest: what is open, counted, with the newest of each named. Reads the store; small, whatever lies there.

It says what is, not when somebody looked: as long as nothing changes, two digests are equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from orchestration.store.port import Database

NAMED: Final = 5
"""Most that are named of each kind."""
_COUNTED: Final = 1000
_LONGEST: Final = 200  # characters of one name


class Open(NamedTuple):
    """One kind of what is open."""

    number: int  # up to 1,000
    newest: tuple[str, ...]


class Digest(NamedTuple):
    """Recent outcomes that nobody has dealt with."""

    open_failures: Open  # cycles that failed after the last success of their job
    parked_promotions: Open
    stale_archives: Open  # iterations of the loop in a row that left no new archive; 0 until the loop calls that stale
    escrow_waiting: Open

    def as_data(self) -> dict[str, object]:
        """Write it as an intent's data, and as `digest.json`."""
        return {name: {"count": kind.number, "newest": list(kind.newest)} for name, kind in self._asdict().items()}


def take(db: Database) -> Digest:
    """Read it from the store."""
    failures = [
        f"cycle {row['cycle']} ({row['job']}) {row['state']}: {row['reason'] or ''}"
        for row in db.rows("reflection.failures", limit=_COUNTED)
    ]
    parked = [f"{row['stem']}: {row['reason']}" for row in db.rows("reflection.parked", limit=_COUNTED)]
    escrow = [f"{row['entry']} ({row['stem']}): {row['rule']}" for row in db.rows("reflection.escrow", limit=_COUNTED)]
    return Digest(_open(failures), _open(parked), _open(_stale(db)), _open(escrow))


def to_bytes(digest: Digest) -> bytes:
    """Write it as a file."""
    return json.dumps({"schema": "v1", **digest.as_data()}, indent=2).encode() + b"\n"


def _stale(db: Database) -> list[str]:
    if not db.rows("reflection.stale"):
        return []
    found = []
    for row in db.rows("reflection.degraded", limit=_COUNTED):
        if row["archive_new"]:
            break
        found.append(f"iteration {row['iteration']} left no new archive")
    return found


def _open(names: Iterable[str]) -> Open:
    listed = list(names)
    return Open(len(listed), tuple(_short(name) for name in listed[:NAMED]))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
