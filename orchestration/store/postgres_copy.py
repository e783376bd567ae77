"""A scope's PostgreSQL as one host sees it, in a store of this process only: for trying out and explaining."""

from __future__ import annotations

import sqlite3

from orchestration.errors import StoreEmpty
from orchestration.store import kernel_rows, postgres_schema
from orchestration.store.libpq import Connection, literal
from orchestration.store.postgres_database import connected, place, translated
from orchestration.store.queries import sql_of
from orchestration.store.sqlite import SqliteDatabase

_NONE = "false"
_COPIED = {
    "iterations": _NONE,
    "products": _NONE,
    # A week of what this host's ticks did, and of what leaders decided.
    "ticks": "tick > (SELECT max(tick) FROM ticks) - 10000 AND (host = {here} OR epoch IS NOT NULL)",
}


def copy_of(url: str, *, scope: str, here: str) -> SqliteDatabase:
    """Return a store with the content that concerns a host and its scope, of one moment; changes nothing on the server.

    Of what only history needs it has as little as `sqlite.copy_of`, and of what each host keeps for itself this host's.

    Raises:
        StoreEmpty: there are no tables yet.
        StoreUnreachable: it can't be read, or was written by a newer program.
    """
    source = connected(url, f"kloros {here} copy")
    try:
        with translated(url):
            source.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            version = postgres_schema.version_of(source)
            postgres_schema.check_not_newer(version, source)
            if version < postgres_schema.KERNEL_SINCE:
                raise StoreEmpty(f"{place(url)} has no tables yet", hint="the first tick makes them")
            memory = SqliteDatabase(":memory:")
            _fill(memory.connection, source, here)
    finally:
        source.close()
    return memory


def _fill(memory: sqlite3.Connection, source: Connection, here: str) -> None:
    there = kernel_rows.tables_of(source)
    memory.execute("BEGIN")
    for name in kernel_rows.names_of(memory, there):
        chosen = _COPIED.get(name, "").format(here=literal(here))
        columns, text = kernel_rows.select(memory, name, there[name], here, chosen)
        memory.executemany(
            f"INSERT OR REPLACE INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
            (tuple(row.values()) for row in source.ask(text)[0].rows),
        )
    ticked = source.ask(sql_of("cycles.hosts_ticked", "postgres"))[0].rows
    memory.executemany("INSERT INTO host_ticks VALUES (?, ?)", [(row["host"], row["last_tick_at"]) for row in ticked])
    memory.execute("COMMIT")
