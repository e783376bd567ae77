"""The bridge's tables in PostgreSQL as one side of a transfer (`transfer.py`), and what klorosctl asks of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from orchestration.bridge.store import rows
from orchestration.bridge.store.postgres_writes import with_words
from orchestration.bridge.store.transfer import Table, plain
from orchestration.errors import StoreUnreachable
from orchestration.store.postgres import PATIENCE, query

_AT_ONCE: Final = 1000
_LOOK_SECONDS: Final = 0.05
_HINT: Final = "check KLR_DATABASE_URL, and that the server runs and lets this user in"


class PostgresSide:
    """A database; read-only, as it was at the start, unless it is to be filled: then nobody else writes meanwhile."""

    def __init__(self, url: str, *, filled: bool = False) -> None:
        """Begin the transaction.

        Raises:
            StoreUnreachable
        """
        self.name = named(url)
        with told():
            self._connection: psycopg.Connection[dict[str, Any]] = psycopg.connect(
                url,
                autocommit=False,
                prepare_threshold=None,
                row_factory=dict_row,
                cursor_factory=psycopg.ClientCursor,
                client_encoding="UTF8",
                **PATIENCE,
            )
            if filled:
                self._connection.execute(query("transfer_postgres.patience"))
                self._connection.execute(query("transfer_postgres.lock"))
            else:
                self._connection.execute(query("transfer_postgres.one_snapshot"))

    def every(self, table: Table) -> Iterator[rows.Row]:
        """Give every row, without holding all of them."""
        with told(), self._connection.cursor(name=f"transfer_{table.name}") as cursor:
            cursor.itersize = _AT_ONCE
            cursor.execute(query(f"transfer_postgres.{table.name}"))
            for row in cursor:
                yield plain(row)

    def write(self, table: Table, lines: list[rows.Row]) -> None:
        """Add rows."""
        with told():
            asked = {"rows": rows.written(with_words(lines) if table.name == "messages" else lines)}
            self._connection.execute(query(f"transfer_postgres.write_{table.name}"), asked)

    def ask(self, name: str, /, **asked: Any) -> list[Any]:
        """Ask."""
        with told():
            return list(self._connection.execute(query(name), asked).fetchall())

    def ask_all(self, name: str, /, **asked: Any) -> None:
        """Carry out statements of which no rows are wanted."""
        with told():
            self._connection.execute(query(name), asked)

    def stream(self, text: str) -> Iterator[dict[str, Any]]:
        """Give the rows of a statement of ours, without holding all of them."""
        with told(), self._connection.cursor(name="stream") as cursor:
            cursor.itersize = _AT_ONCE
            yield from cursor.execute(text.encode())

    def execute(self, text: str, lines: list[tuple[Any, ...]]) -> None:
        """Carry out a statement of ours for each of these values."""
        with told(), self._connection.cursor() as cursor:
            cursor.executemany(text.encode(), lines)

    def empty(self) -> None:
        """Take every row out, to be filled anew in the same transaction."""
        with told():
            self._connection.execute(query("transfer_postgres.empty"))

    def newest(self) -> int:
        """Look again."""
        with told():
            self._connection.rollback()
        return int(self.ask("soundness.newest")[0]["entry"])

    def commit(self) -> None:
        """Commit, after which the audit's numbers go on where they stopped."""
        with told():
            self._connection.execute(query("transfer_postgres.number_on"))
            self._connection.commit()

    def close(self) -> None:
        """Close."""
        self._connection.close()


def schema_of(url: str) -> int:
    """Return the version of the tables, 0 where there are none.

    Raises:
        StoreUnreachable
    """
    with told(), psycopg.connect(url, autocommit=True, row_factory=dict_row, **PATIENCE) as connection:
        there = connection.execute(query("transfer_postgres.has_schema")).fetchone()
        if there is None or not there["there"]:
            return 0
        row = connection.execute(query("postgres.schema_version")).fetchone()
        return int(row["version"]) if row else 0


def others(url: str, *, within: float = 3.0) -> int:
    """Count who else is connected to a database; who is just leaving is given some seconds."""
    until = time.monotonic() + within
    with told(), psycopg.connect(url, autocommit=True, row_factory=dict_row, **PATIENCE) as connection:
        while True:
            row = connection.execute(query("transfer_postgres.others")).fetchone()
            found = int(row["others"]) if row else 0
            if not found or time.monotonic() > until:
                return found
            time.sleep(_LOOK_SECONDS)  # PostgreSQL tells nobody that a session has ended


def named(url: str) -> str:
    """Name a database for people: never with its password."""
    parts = conninfo_to_dict(url)
    where = parts.get("host") or parts.get("hostaddr") or "this host"
    return f"PostgreSQL {parts.get('dbname') or parts.get('user') or 'default'} on {where}"


@contextmanager
def told() -> Iterator[None]:
    """Tell what PostgreSQL says in a line of ours."""
    try:
        yield
    except psycopg.Error as error:
        first = str(error).strip().partition("\n")[0]
        raise StoreUnreachable(f"PostgreSQL: {first}", hint=_HINT) from error
