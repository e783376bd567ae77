"""What the program asks of a database: named queries, inside a transaction or alone.

A query is a paragraph of SQL in `queries/<area>.sql` under a line `-- name: area.verb`; parameters are `:name`.
Instants go in and out as text made by `instants.to_text`; structures as JSON text. The tables' owners
(`cycles/ledger.py`, `promotions/ledger.py`, …) speak only this port, so one contract suite proves every adapter.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

Value: TypeAlias = str | int | float | None


class Row(Protocol):
    """One row of a result, addressed by column name."""

    def __getitem__(self, column: str, /) -> Value: ...

    def keys(self) -> Iterable[str]: ...


class Database(Protocol):
    """One connection. Raises `StoreUnreachable`, or `Unwritable` when the disk refuses."""

    @property
    def is_shared(self) -> bool:
        """Whether several hosts share this store: a scope's PostgreSQL, and a look at it; no copy that a host has made."""
        ...

    def transaction(self, *, looking: bool = False) -> AbstractContextManager[None]:
        """Commit everything inside together, or nothing; never nested. `looking`: one consistent look, no change."""
        ...

    def rows(self, query: str, /, **parameters: Value) -> list[Row]:
        """Return every row of the named query."""
        ...

    def run(self, query: str, /, **parameters: Value) -> int:
        """Carry out the named statement; return how many rows it changed."""
        ...

    def close(self) -> None: ...
