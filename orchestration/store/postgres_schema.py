"""Brings PostgreSQL's tables up to this program, in one transaction under one lock, whoever comes first.

The lock is the transaction's and not the session's: a pooler may stand between (https://www.pgbouncer.org/features.html).
"""

from __future__ import annotations

from orchestration import __version__
from orchestration.errors import StoreUnreachable
from orchestration.store.libpq import Connection, Refused, literal
from orchestration.store.queries import sql

SCHEMA_VERSION = 3
KERNEL_SINCE = 3
"""The first version that has the kernel's tables; those before have the bridge's alone."""
OLDEST_SERVER = 150000
_PATIENCE = 600.0
"""Seconds a migration may take, or one that another applies: as long as a large table needs."""
_LOCK = 0x6B6C6F726F73  # "kloros"
NO_SUCH_TABLE = "42P01"


def version_of(connection: Connection) -> int:
    """Return the last migration that was applied; 0 when there was none."""
    try:
        return int(connection.ask(sql("postgres.schema_version"))[0].rows[0]["version"])
    except Refused as refused:
        if refused.sqlstate == NO_SUCH_TABLE:
            return 0
        raise


def bring_up(connection: Connection) -> None:
    """Apply every migration that is missing; whoever comes meanwhile waits for it.

    Raises:
        StoreUnreachable: the server is too old, keeps no UTF-8, or a newer program was here.
        Refused, Lost: by the server.
    """
    from orchestration.store.migrations import numbered

    _check_server(connection)
    usual, connection.patience = connection.patience, _PATIENCE
    connection.ask("BEGIN")
    try:
        connection.ask(sql("postgres.lock_schema").replace(":lock", literal(_LOCK)))
        connection.ask(sql("postgres.make_schema"))
        version = version_of(connection)
        check_not_newer(version, connection)
        for number, text in numbered("postgres"):
            if number > version:
                connection.ask(text)
                connection.ask(sql("postgres.note_version").replace(":version", literal(number)))
        connection.ask("COMMIT")
    except BaseException:
        if connection.is_open:
            connection.ask("ROLLBACK")
        raise
    finally:
        connection.patience = usual


def check_not_newer(version: int, connection: Connection) -> None:
    """Check that the tables are none that a newer program made.

    Raises:
        StoreUnreachable: they are.
    """
    if version > SCHEMA_VERSION:
        raise StoreUnreachable(
            f"the database has schema version {version}{_whose(connection)}; this program knows {SCHEMA_VERSION}",
            hint="a newer release wrote it: run that release, or restore a backup made before the upgrade",
        )


def _whose(connection: Connection) -> str:
    """Say which release ticks with it, as far as one has told; for a transaction that is to fail anyhow."""
    try:
        found = connection.ask(sql("postgres.last_ticked"))[0].rows
    except Refused:
        return ""
    if not found or found[0]["release"] in ("", __version__):
        return ""
    return f", as release {found[0]['release']} on {found[0]['host']} has it"


def _check_server(connection: Connection) -> None:
    if connection.server_version < OLDEST_SERVER:
        raise StoreUnreachable(
            f"PostgreSQL {connection.server_version // 10000} is too old", hint="use PostgreSQL 15 or later"
        )
    encoding = connection.told("server_encoding")
    if encoding not in ("UTF8", ""):  # a pooler may not say
        raise StoreUnreachable(f"the database keeps text as {encoding}", hint="make one: createdb -E UTF8 -T template0 …")
