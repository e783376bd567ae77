"""Moves the bridge's threads from `kloros.db` into PostgreSQL: all of one moment, compared row by row, or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final, NamedTuple

import psycopg

from orchestration.bridge.store import rows
from orchestration.bridge.words import words
from orchestration.errors import KlorosError, StoreUnreachable
from orchestration.store.postgres import Connection, connected, migrate
from orchestration.store.sqlite import SCHEMA_VERSION, uri

_PAGE: Final = 1000
_KEYS: Final = {
    "bridge_threads": "thread_id",
    "bridge_participants": "thread_id, agent_id",
    "bridge_messages": "thread_id, seq",
    "bridge_findings": "thread_id, finding_id",
    "bridge_rates": "workspace_id, agent_id",
    "bridge_sessions": "workspace_id, agent_id, session_id",
    "bridge_triggers": "trigger_id",
    "bridge_revocations": "token_id",
    "bridge_audit": "entry",
    "bridge_chains": "workspace_id",
}
_INSTANTS: Final = {"at", "created_at", "updated_at", "joined_at", "heartbeat_at", "expires_at", "revoked_at"}


class Copied(NamedTuple):
    """How many rows of a table were copied, and found alike."""

    table: str
    rows: int


async def copy_to_postgres(path: str, url: str) -> list[Copied]:
    """Copy every table of the bridge into an empty PostgreSQL database, in one transaction on each side.

    What is written to the file meanwhile is left out: stop the bridge before.

    Raises:
        StoreUnreachable: one of them can't be opened, or the file is of another release.
        KlorosError: the database has threads already, or does not give back what was written.
    """
    await migrate(url)
    try:
        with closing(_opened(path)) as source:
            async with await connected(url) as target, target.transaction():
                await _must_be_empty(target)
                return [await _copied(source, target, table) for table in _KEYS]
    except sqlite3.Error as error:
        raise StoreUnreachable(
            f"{path}: {error}", hint=f"check the file: sqlite3 {path} 'PRAGMA integrity_check'"
        ) from error
    except psycopg.Error as error:
        told = str(error).strip().partition("\n")[0]
        raise StoreUnreachable(f"PostgreSQL: {told}", hint="nothing was copied; try again") from error


def _opened(path: str) -> sqlite3.Connection:
    source = sqlite3.connect(uri(path, "rw"), uri=True, isolation_level=None)
    source.row_factory = sqlite3.Row
    source.execute("BEGIN")
    (version,) = source.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        source.close()
        raise StoreUnreachable(
            f"{path} has schema version {version}; this program copies {SCHEMA_VERSION}", hint="run a tick: klorosctl tick"
        )
    return source


async def _must_be_empty(target: Connection) -> None:
    for table in _KEYS:
        await target.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE".encode())
        found: Any = await (await target.execute(f"SELECT 1 FROM {table} LIMIT 1".encode())).fetchone()  # noqa: S608 our own names
        if found is not None:
            raise KlorosError(f"the database has rows in {table} already", hint="copy into a new one: createdb -E UTF8 …")


async def _copied(source: sqlite3.Connection, target: Connection, table: str) -> Copied:
    columns = [row["name"] for row in source.execute(f"PRAGMA table_info({table})") if row["name"] != "number"]
    more = ["words"] if table == "bridge_messages" else []
    async with target.cursor().copy(f"COPY {table} ({', '.join(columns + more)}) FROM STDIN".encode()) as into:
        for row in _rows(source, table, columns):
            found = " ".join(f"'{word}'" for word in words(row["body"])) if more else None
            await into.write_row([*(row[name] for name in columns), *([found] if more else [])])
    if table == "bridge_audit":
        sequence = "SELECT setval(pg_get_serial_sequence('bridge_audit', 'entry'), max(entry)) FROM bridge_audit"
        await target.execute(sequence.encode())
    return Copied(table, await _compared(source, target, table, columns))


def _rows(source: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[sqlite3.Row]:
    return iter(source.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {_KEYS[table]}"))  # noqa: S608 our own names


async def _compared(source: sqlite3.Connection, target: Connection, table: str, columns: list[str]) -> int:
    """Read both sides in one order, and return how many rows were alike."""
    order = ", ".join(key if key in ("seq", "entry") else f'{key} COLLATE "C"' for key in _KEYS[table].split(", "))
    text, count, wanted = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}", 0, _rows(source, table, columns)  # noqa: S608 our own names
    async with psycopg.AsyncServerCursor(target, "compared", row_factory=psycopg.rows.dict_row) as cursor:
        await cursor.execute(text.encode())
        while page := await cursor.fetchmany(_PAGE):
            for found in page:
                told = {name: rows.text(value) if name in _INSTANTS else value for name, value in found.items()}
                if (row := next(wanted, None)) is None or dict(row) != told:
                    raise KlorosError(f"row {count + 1} of {table} is not what was written", hint="nothing was copied")
                count += 1
    if next(wanted, None) is not None:
        raise KlorosError(f"{table} ends after {count} rows", hint="nothing was copied")
    return count
