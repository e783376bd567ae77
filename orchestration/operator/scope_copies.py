"""A scope's tables, all of its hosts, kept in a `bridge-….db` beside the bridge's, put back from there, and checked.

SQLite's own tables have no room for several hosts, so those of a scope are kept under names of their own, `scope_ticks` and
so on, with PostgreSQL's columns. Instants and bytes are text there. Whatever a table has is kept: no list to forget one in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orchestration.store.sqlite import uri

if TYPE_CHECKING:
    from orchestration.bridge.store.transfer_postgres import PostgresSide

PREFIX: Final = "scope_"
_TOGETHER: Final = 500
_STAY: Final = ("leases", "shared_revision")
"""What is not put back: who leads is nobody's to say twice, and what is shared is another revision by then."""
_READ: Final = {"timestamp with time zone": "kloros_instant({})", "bytea": "encode({}, 'base64')"}
_WRITE: Final = {"bytea": "decode({}, 'base64')"}
_RULES: Final = {
    "scope_copies.leases": "a scope has one",
    "scope_copies.epochs": "it was stored after a tick of a later leader",
    "scope_copies.hosts": "it was started, and on no host",
    "scope_copies.settled": "it is settled, and has not ended",
    "scope_copies.phases": "two PHASEs succeeded for this date",
    "scope_copies.versions": "it does not follow the version before it",
}


class _Table(NamedTuple):
    name: str
    columns: tuple[tuple[str, str], ...]  # with their types


def keep(source: PostgresSide, path: str) -> dict[str, int]:
    """Copy every table of the scope into a file, as they are in the source's transaction; returns how many rows each has."""
    kept: dict[str, int] = {}
    with closing(sqlite3.connect(uri(path, "rw"), uri=True)) as file, file:
        for table in _tables(source):
            columns = ", ".join(name for name, _ in table.columns)
            file.execute(f"CREATE TABLE {PREFIX}{table.name} ({columns})")
            insert = f"INSERT INTO {PREFIX}{table.name} VALUES ({', '.join('?' * len(table.columns))})"  # noqa: S608
            kept[table.name] = 0
            for lines in _batches(_rows(source, table)):
                file.executemany(insert, lines)
                kept[table.name] += len(lines)
    return kept


def put_back(target: PostgresSide, path: str) -> dict[str, int]:
    """Put a scope's rows in the place of those that are there, in the target's transaction; nothing, where none were kept.

    Hosts that are known stay known, and nobody leads.
    """
    with closing(sqlite3.connect(uri(path, "ro"), uri=True)) as file:
        names = {str(name) for (name,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        tables = [table for table in _tables(target) if f"{PREFIX}{table.name}" in names]
        if not tables:
            return {}
        target.ask_all("scope_copies.lock")
        done = {table.name: _fill(target, file, table) for table in tables if table.name not in _STAY}
        kept = file.execute(f"SELECT scope, epoch FROM {PREFIX}leases").fetchall()  # noqa: S608
    for scope, epoch in kept:
        target.execute("INSERT INTO leases (scope) SELECT %s WHERE NOT EXISTS (SELECT FROM leases)", [(scope,)])
        target.ask_all("scope_copies.put_back", epoch=epoch)
    return done


def faults(side: PostgresSide) -> Iterator[str]:
    """Say what does not hold between a scope's rows."""
    return (f"{row['what']}: {why}" for query, why in _RULES.items() for row in side.ask(query))


def _tables(side: PostgresSide) -> list[_Table]:
    found = groupby(side.ask("scope_copies.tables"), key=lambda row: str(row["table_name"]))
    return [_Table(name, tuple((row["column_name"], row["data_type"]) for row in rows)) for name, rows in found]


def _rows(side: PostgresSide, table: _Table) -> Iterator[tuple[Any, ...]]:
    columns = ", ".join(f"{_READ.get(kind, '{}').format(name)} AS {name}" for name, kind in table.columns)
    return (tuple(row.values()) for row in side.stream(f"SELECT {columns} FROM {table.name}"))  # noqa: S608


def _fill(target: PostgresSide, file: sqlite3.Connection, table: _Table) -> int:
    kinds, rows = dict(table.columns), 0
    kept = file.execute(f"SELECT * FROM {PREFIX}{table.name}")  # noqa: S608
    columns = [name for name, *_ in kept.description]
    values = ", ".join(_WRITE.get(kinds[name], "{}").format("%s") for name in columns)
    known = table.name == "hosts"
    if not known:
        target.execute(f"DELETE FROM {table.name}", [()])  # noqa: S608
    insert = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608
    for lines in _batches(kept):
        target.execute(f"{insert} ON CONFLICT DO NOTHING" if known else insert, lines)
        rows += len(lines)
    return rows


def _batches(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while lines := list(islice(rows, _TOGETHER)):
        yield lines
