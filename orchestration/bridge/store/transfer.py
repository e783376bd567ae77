"""Every row of the bridge from one store to another, and both compared row by row before any of it counts.

What is copied are the bridge's fourteen tables and nothing else: what ticks remember stays in `kloros.db`. For klorosctl, so
it waits where the servers' adapters don't. The source is seen as it was at one instant; the target gets all or nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, zip_longest
from typing import Any, Final, NamedTuple, Protocol

from orchestration.bridge.state import ChainsVerified
from orchestration.bridge.store import rows
from orchestration.bridge.store.sqlite_words import index_part
from orchestration.bridge.store.verification import verified
from orchestration.errors import KlorosError, StoreUnreachable
from orchestration.store.queries import sql
from orchestration.store.sqlite import uri

_TOGETHER: Final = 500
_MOST_TOLD: Final = 10
_INSTANTS: Final = frozenset(
    {
        "created_at",
        "updated_at",
        "joined_at",
        "heartbeat_at",
        "at",
        "expires_at",
        "revoked_at",
        "due_at",
        "lease_until",
        "deferred_at",
        "renewed_at",
        "began_at",
        "ended_at",
        "paused_at",
    },
)
_RULES: Final = {
    "soundness.gaps": "its messages are not numbered 1, 2, … up to the last",
    "soundness.orphans": "rows speak of this thread, and it is not there",
    "soundness.cursors": "a cursor is before the first or past the last message",
    "soundness.wakes": "a trigger has ended in one table and not in the other",
}


class Table(NamedTuple):
    """One table of the bridge, without the `bridge_` before its name."""

    name: str
    key: tuple[str, ...]
    writes: tuple[str, ...]
    """The named statements that write one row in SQLite."""


TABLES: Final = (
    Table("threads", ("thread_id",), ("bridge_sqlite.write_created",)),
    Table("participants", ("thread_id", "agent_id"), ("bridge_sqlite.write_joined",)),
    Table("messages", ("thread_id", "seq"), ("bridge_sqlite.write_posts",)),
    Table("findings", ("thread_id", "finding_id"), ("bridge_sqlite.write_findings",)),
    Table("rates", ("workspace_id", "agent_id"), ("bridge_sqlite.write_rates",)),
    Table("sessions", ("workspace_id", "agent_id", "session_id"), ("bridge_sqlite.write_sessions",)),
    Table("triggers", ("trigger_id",), ("bridge_sqlite.write_triggers",)),
    Table("revocations", ("token_id",), ("bridge_sqlite.write_revocations",)),
    Table("audit", ("entry",), ("transfer_sqlite.write_audit",)),
    Table("chains", ("workspace_id",), ("bridge_sqlite.write_chains",)),
    Table("wake_states", ("trigger_id",), ("transfer_sqlite.write_wake_states",)),
    Table("wake_attempts", ("trigger_id", "number"), ("transfer_sqlite.write_wake_attempts",)),
    Table("session_writers", ("session_id",), ("transfer_sqlite.write_session_writers",)),
    Table("pauses", ("workspace_id", "agent_id"), ("transfer_sqlite.write_pauses",)),
)


class CopyDiffers(KlorosError):
    """The copy is not what it was copied from; nothing of it was kept."""


class Side(Protocol):
    """One store, open for all of a transfer in one transaction."""

    name: str

    def every(self, table: Table) -> Iterator[rows.Row]:
        """Give every row of a table in the order of its key's bytes, instants and all as text and numbers."""
        ...

    def write(self, table: Table, lines: list[rows.Row]) -> None:
        """Add rows."""
        ...

    def ask(self, query: str, /, **asked: Any) -> list[Any]:
        """Ask a query that reads alike in both dialects."""
        ...

    def newest(self) -> int:
        """Tell the number of the newest entry of the audit now; ends the look at one instant."""
        ...

    def commit(self) -> None:
        """Keep what was written."""
        ...

    def close(self) -> None:
        """Let go of the store; what was not committed is gone."""
        ...


class Moved(NamedTuple):
    """What a transfer did."""

    copied: dict[str, int]
    """Rows by table."""
    newer: int
    """Audit entries that the source has got since; what they tell of was not copied."""


class Soundness(NamedTuple):
    """What checking a store has found."""

    faults: tuple[str, ...]
    rows: dict[str, int]
    """How many threads and audit entries there are."""


def transfer(source: Side, target: Side) -> Moved:
    """Copy every row, compare every row, and commit.

    Raises:
        CopyDiffers: nothing was copied.
    """
    (seen,) = source.ask("soundness.newest")
    copied = {table.name: _copied(source, target, table) for table in TABLES}
    differing = differences(source, target)
    if differing:
        target.close()
        hint = "nothing was kept; please report this"
        raise CopyDiffers(f"{target.name} is not what was copied: " + "; ".join(differing), hint=hint)
    target.commit()
    return Moved(copied, source.newest() - int(seen["entry"]))


def _copied(source: Side, target: Side, table: Table) -> int:
    found, copied = source.every(table), 0
    while lines := list(islice(found, _TOGETHER)):
        target.write(table, lines)
        copied += len(lines)
    return copied


def differences(source: Side, target: Side) -> list[str]:
    """Compare two stores row by row; say of the first few rows that differ where they are."""
    told: list[str] = []
    for table in TABLES:
        for ours, theirs in zip_longest(source.every(table), target.every(table)):
            if ours != theirs:
                row = ours if ours is not None else theirs
                told.append(f"bridge_{table.name} {', '.join(str(row[name]) for name in table.key)}" if row else table.name)
                break
        if len(told) >= _MOST_TOLD:
            break
    return told


def is_empty(side: Side) -> bool:
    """Say whether a store has no row of the bridge."""
    return not any(True for table in TABLES for _ in islice(side.every(table), 1))


def sound(side: Side) -> Soundness:
    """Check what must hold between rows, and walk the chains of the audit."""
    found = [f"{row['what']}: {why}" for query, why in _RULES.items() for row in side.ask(query)]
    chains = walked(side)
    found += [f"audit {one.chain}, entry {one.link}: {one.what}" for one in chains.faults]
    threads = sum(int(row["threads"]) for row in side.ask("census.threads"))
    return Soundness(tuple(found), {"threads": threads, "entries": chains.entries})


def walked(side: Side) -> ChainsVerified:
    """Walk every chain of the audit."""
    walking = verified(side.ask("bridge.audit_heads"))
    try:
        step = next(walking)
        while True:
            step = walking.send(side.ask("bridge.audit_links", **dict(zip(("chain", "link", "limit"), step, strict=True))))
    except StopIteration as end:
        result: ChainsVerified = end.value
        return result


def plain(row: rows.Found) -> rows.Row:
    """Give a row in the one form in which rows of both stores are compared."""
    return {
        name: rows.text(rows.instant(value)) if name in _INSTANTS and value is not None else value
        for name, value in dict(row).items()
    }


class SqliteSide:
    """A file; read-only unless it is to be filled. It has the tables of this program."""

    def __init__(self, path: str, *, filled: bool = False) -> None:
        """Begin the transaction.

        Raises:
            StoreUnreachable
        """
        self.name = path
        try:
            self._connection = sqlite3.connect(
                uri(path, "rw" if filled else "ro"), uri=True, timeout=10, isolation_level=None
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN IMMEDIATE" if filled else "BEGIN")
        except sqlite3.Error as error:
            raise StoreUnreachable(f"{path}: {error}", hint="klorosctl doctor") from error

    def every(self, table: Table) -> Iterator[rows.Row]:
        """Give every row."""
        return (plain(dict(row)) for row in self._connection.execute(sql(f"transfer_sqlite.{table.name}")))

    def write(self, table: Table, lines: list[rows.Row]) -> None:
        """Add rows."""
        for statement in table.writes:
            self._connection.executemany(sql(statement), lines)

    def ask(self, query: str, /, **asked: Any) -> list[Any]:
        """Ask."""
        return [dict(row) for row in self._connection.execute(sql(query), asked).fetchall()]

    def integrity(self) -> list[str]:
        """Have SQLite check the file itself (https://www.sqlite.org/pragma.html#pragma_integrity_check)."""
        found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(10)")]
        return [] if found == ["ok"] else found

    def newest(self) -> int:
        """Look again."""
        self._connection.rollback()
        return int(self.ask("soundness.newest")[0]["entry"])

    def commit(self) -> None:
        """Index the words of messages, and commit."""
        while index_part(self._connection):
            pass
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close."""
        with suppress(sqlite3.Error):
            self._connection.close()
