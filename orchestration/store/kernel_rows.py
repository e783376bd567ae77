"""A scope's rows in PostgreSQL as one host's own SQLite file would have them: for copying either way, and for comparing.

What SQLite has no column for, such as whose a tick was, is left out; what PostgreSQL has in a table of its own, because each
host has its own answer, is put back in its column.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import zip_longest

from orchestration.store.libpq import Connection, literal

_TOGETHER = 2000
_COLUMNS = """
    SELECT table_name, string_agg(column_name, ' ') AS columns FROM information_schema.columns
    WHERE table_schema = current_schema() GROUP BY table_name
"""
_OF_FILES = {
    "baseline_versions": {
        "written": "(SELECT count(*) FROM baseline_files f WHERE f.host = {here} AND f.version = t.version)",
        "retired_at": "(SELECT retired_at FROM baseline_files f WHERE f.host = {here} AND f.version = t.version)",
    },
    "escrow": {
        "written": "(SELECT count(*) FROM escrow_files f"
        " WHERE f.host = {here} AND f.entry = t.entry AND f.status = t.status)",
    },
}

Line = tuple[str | int | float | None, ...]


def tables_of(server: Connection) -> dict[str, set[str]]:
    """Return the server's tables, and the names of their columns."""
    return {row["table_name"]: set(row["columns"].split()) for row in server.ask(_COLUMNS)[0].rows}


def names_of(file: sqlite3.Connection, there: dict[str, set[str]]) -> list[str]:
    """Return the tables that both have, without the bridge's."""
    names = [str(name) for (name,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    return [name for name in names if name in there and not name.startswith(("sqlite_", "bridge_"))]


def columns_of(file: sqlite3.Connection, name: str) -> list[str]:
    """Return the columns of a table of SQLite's."""
    return [str(column) for _, column, *_ in file.execute(f"PRAGMA table_info({name})")]


def key_of(file: sqlite3.Connection, name: str) -> list[str]:
    """Return the columns of its primary key."""
    found = [(place, str(column)) for _, column, *_, place in file.execute(f"PRAGMA table_info({name})") if place]
    return [column for _, column in sorted(found)]


def select(file: sqlite3.Connection, name: str, there: set[str], here: str, chosen: str = "") -> tuple[list[str], str]:
    """Return the columns that a host's file has of a table, and the server's statement that gives its rows so.

    `chosen` says which of them, instead of all that are this host's or the scope's.
    """
    ours, made = columns_of(file, name), _OF_FILES.get(name, {})
    columns = [column for column in ours if column in there or column in made]
    texts = [f"{made[column].format(here=literal(here))} AS {column}" if column in made else column for column in columns]
    own = f"host IN ('', {literal(here)})" if "host" in there - set(ours) else "true"
    return columns, f"SELECT {', '.join(texts)} FROM {name} t WHERE {chosen or own}"  # noqa: S608 (our migrations' names)


def difference(file: sqlite3.Connection, server: Connection, name: str, there: set[str], here: str) -> str:
    """Compare a table row by row; say which row is the first to differ, empty when none does.

    Which host ran a cycle is not compared: a host that is alone does not note it.
    """
    columns, text = select(file, name, there, here)
    compared = [column for column in columns if (name, column) != ("cycles", "host")]
    key = key_of(file, name)
    ours = file.execute(f"SELECT {', '.join(compared)} FROM {name} ORDER BY {', '.join(key)}")  # noqa: S608
    for mine, theirs in zip_longest(ours, _lines(server, text, compared, key)):
        if mine != theirs:
            row = dict(zip(compared, mine or theirs or (), strict=True))
            return f"{name} {', '.join(str(row[column]) for column in key)}"
    return ""


def _lines(server: Connection, text: str, columns: list[str], key: list[str]) -> Iterator[Line]:
    """Give rows in the order of their key, some thousands at a time."""
    order, last = ", ".join(key), ""
    while True:
        more = f" AND ({order}) > ({last})" if last else ""
        rows = server.ask(f"{text}{more} ORDER BY {order} LIMIT {_TOGETHER}")[0].rows
        for row in rows:
            yield tuple(row[column] for column in columns)
        if len(rows) < _TOGETHER:
            return
        last = ", ".join(literal(rows[-1][column]) for column in key)
