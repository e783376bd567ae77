"""PostgreSQL for the bridge, when `database_url` names one: connecting by psycopg, many statements at once.

Sessions are never relied on, for a pooler may stand between (https://www.pgbouncer.org/features.html): queries go out with
their values in them, prepared by nobody. What ticks ask goes by `postgres_database.py`.
"""

from __future__ import annotations

import asyncio
import re

import psycopg
from psycopg.rows import dict_row

from orchestration.store import postgres_database
from orchestration.store.postgres_database import PATIENCE
from orchestration.store.postgres_schema import SCHEMA_VERSION
from orchestration.store.queries import sql

__all__ = ["PATIENCE", "SCHEMA_VERSION", "Connection", "connected", "migrate", "query"]

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
        Unwritable: its disk is full.
    """
    await asyncio.to_thread(postgres_database.migrate, url)
