"""PostgreSQL, when `database_url` names one: connecting, and bringing its tables up to this program.

Sessions are never relied on, for a pooler may stand between (https://www.pgbouncer.org/features.html): the lock under which
tables are migrated is the transaction's, and queries go out with their values in them, prepared by nobody.
"""

from __future__ import annotations

import os
import re
from typing import Any

import psycopg
from psycopg.rows import dict_row

from orchestration.errors import StoreUnreachable
from orchestration.store.queries import sql

SCHEMA_VERSION = 3
OLDEST_SERVER = 150000
PATIENCE: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""After how long a server that has gone without a word is given up, see libpq's connection parameters."""
_MIGRATIONS = os.path.join(os.path.dirname(__file__), "migrations", "postgres")
_LOCK = 0x6B6C6F726F73  # "kloros"
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
_texts: dict[str, str] = {}

Connection = psycopg.AsyncConnection[dict[str, object]]


def query(name: str) -> str:
    """Return a named query with its parameters written as psycopg knows them."""
    if name not in _texts:
        _texts[name] = _PARAMETER.sub(r"%(\1)s", sql(name))
    return _texts[name]


async def connected(url: str) -> Connection:
    """Open a connection of its own, in which every statement is its own transaction.

    Raises:
        psycopg.Error: it can't be had within a few seconds.
    """
    connection: Connection = await psycopg.AsyncConnection.connect(
        url,
        autocommit=True,
        prepare_threshold=None,
        row_factory=dict_row,
        cursor_factory=psycopg.AsyncClientCursor,
        client_encoding="UTF8",
        **PATIENCE,
    )
    return connection


async def migrate(url: str) -> None:
    """Apply every migration that is missing, in one transaction; whoever comes meanwhile waits for it.

    Raises:
        StoreUnreachable: the server can't be reached, is too old, keeps no UTF-8, or a newer program was here.
    """
    try:
        async with await connected(url) as connection:
            _check(connection)
            async with connection.transaction():
                await _bring_up(connection)
    except psycopg.Error as error:
        hint = "check KLR_DATABASE_URL, and that the server runs and lets this user in"
        raise StoreUnreachable(f"PostgreSQL: {str(error).strip().partition(chr(10))[0]}", hint=hint) from error


async def _bring_up(connection: Connection) -> None:
    await connection.execute(query("postgres.lock_schema"), {"lock": _LOCK})
    await connection.execute(query("postgres.make_schema"))
    cursor = await connection.execute(query("postgres.schema_version"))
    row = await cursor.fetchone()
    version = int(str(row["version"])) if row else 0
    if version > SCHEMA_VERSION:
        raise StoreUnreachable(
            f"the database has schema version {version}; this program knows {SCHEMA_VERSION}",
            hint="a newer release wrote it: run that release, or restore a backup made before the upgrade",
        )
    for number, text in _migrations():
        if number > version:
            await connection.execute(text)  # without parameters: many statements in one go, % and : as they stand
            await connection.execute(query("postgres.note_version"), {"version": number})


def _check(connection: Connection) -> None:
    if connection.info.server_version < OLDEST_SERVER:
        raise StoreUnreachable(
            f"PostgreSQL {connection.info.server_version // 10000} is too old", hint="use PostgreSQL 15 or later"
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ("UTF8", None):  # a pooler may not say
        raise StoreUnreachable(f"the database keeps text as {encoding}", hint="make one: createdb -E UTF8 -T template0 …")


def _migrations() -> list[tuple[int, bytes]]:
    found = []
    for name in sorted(os.listdir(_MIGRATIONS)):
        with open(os.path.join(_MIGRATIONS, name), "rb") as file:
            found.append((int(name[:4]), file.read()))
    return found
