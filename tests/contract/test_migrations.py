"""Tables of every earlier version, with a row in each, brought up to this program: nothing is lost.

`test_store.py` and `test_postgres_migrations.py` have who comes first, who is refused, and what a failure leaves.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql as compose
from psycopg.rows import dict_row

from orchestration.bridge.store.sqlite import SqliteStore
from orchestration.errors import StoreUnreachable
from orchestration.store import postgres, sqlite
from orchestration.store.sqlite import SqliteDatabase
from tests.contract.bridging import opened_thread, post
from tests.contract.conftest import opened_at
from tests.contract.postgres import Cluster

Rows = dict[str, list[dict[str, Any]]]
SAMPLES: dict[str, object] = {
    "INTEGER": 7, "REAL": 1.5, "TEXT": "2026-11-21T12:00:00.000000Z", "bigint": 7, "integer": 7, "double precision": 1.5,
    "text": "2026-11-21T12:00:00.000000Z", "timestamp with time zone": "2026-11-21T12:00:00Z", "tsvector": "'kept':1",
    "bytea": b"kept",
}  # fmt: skip
CHECKED = {("shared_files", "folder"): "acks", ("shared_files", "state"): "there"}


def tables(db: sqlite3.Connection) -> list[str]:
    """Every table but those that SQLite makes for itself and for the index of words."""
    found = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'")
    return [name for (name,) in found if not name.startswith(("sqlite_", "bridge_words"))]


def rows_of(db: sqlite3.Connection) -> Rows:
    found: Rows = {}
    for name in tables(db):
        cursor = db.execute(f"SELECT * FROM {name}")
        columns = [column for column, *_ in cursor.description]
        found[name] = [dict(zip(columns, row, strict=True)) for row in cursor]
    return found


def schema_of(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as db:
        return {name: " ".join(str(text).split()) for name, text in db.execute("SELECT name, sql FROM sqlite_master")}


def of_version(path: Path, version: int) -> Rows:
    """Make a file as an earlier program left it, with a row in each of its tables."""
    migrations = sorted((Path(sqlite.__file__).parent / "migrations").glob("*.sql"))[:version]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("".join(one.read_text() for one in migrations))
        for name in tables(db):
            columns = {column: SAMPLES[kind] for _, column, kind, *_ in db.execute(f"PRAGMA table_info({name})")}
            db.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", tuple(columns.values()))
        db.execute(f"PRAGMA user_version = {version}")
        return rows_of(db)


@pytest.mark.parametrize("version", range(1, sqlite.SCHEMA_VERSION))
def test_a_file_of_every_earlier_version_keeps_every_row(tmp_path: Path, version: int) -> None:
    before = of_version(tmp_path / "kloros.db", version)
    SqliteDatabase(str(tmp_path / "kloros.db")).close()
    SqliteDatabase(str(tmp_path / "empty.db")).close()
    with closing(sqlite3.connect(tmp_path / "kloros.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (sqlite.SCHEMA_VERSION,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        after = rows_of(db)
    assert before.keys() <= after.keys()
    for name, had in before.items():
        kept = [{column: row[column] for column in had[0]} for row in after[name]]
        assert kept == had, name
    assert schema_of(tmp_path / "kloros.db").keys() == schema_of(tmp_path / "empty.db").keys()


@pytest.mark.anyio
async def test_the_bridge_works_over_the_file_of_a_program_that_had_none(tmp_path: Path) -> None:
    of_version(tmp_path / "kloros.db", 1)
    store = SqliteStore(str(tmp_path / "kloros.db"))
    thread_id = await opened_thread(store)
    assert (await post(store, thread_id, "x")).seq == 1
    assert not (await store.verify()).faults
    await store.close()


@pytest.mark.anyio
async def test_a_bridge_that_is_older_than_the_file_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kloros.db"
    SqliteDatabase(str(path)).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {sqlite.SCHEMA_VERSION + 1}")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    with pytest.raises(StoreUnreachable, match=f"this program knows {sqlite.SCHEMA_VERSION}"):
        SqliteStore(str(path))
    assert path.read_bytes() == before


def rows_in(connection: psycopg.Connection[dict[str, Any]]) -> Rows:
    found = connection.execute(b"SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    names = sorted(row["tablename"] for row in found)
    select = compose.SQL("SELECT * FROM {}")
    return {name: connection.execute(select.format(compose.Identifier(name))).fetchall() for name in names}


def fill(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """Put a row into each table."""
    found = connection.execute(
        b"SELECT table_name, column_name, data_type FROM information_schema.columns"
        b" WHERE table_schema = 'public' AND is_identity = 'NO' AND table_name <> 'kloros_schema'"
        b" AND table_name IN (SELECT tablename FROM pg_tables)"
    ).fetchall()
    columns: dict[str, dict[str, object]] = {}
    for row in found:
        columns.setdefault(row["table_name"], {})[row["column_name"]] = CHECKED.get(
            (row["table_name"], row["column_name"]), SAMPLES[row["data_type"]]
        )
    for table, values in columns.items():
        insert = compose.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            compose.Identifier(table),
            compose.SQL(", ").join(map(compose.Identifier, values)),
            compose.SQL(", ").join(map(compose.Literal, values.values())),
        )
        connection.execute(insert)


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
@pytest.mark.parametrize("version", range(1, postgres.SCHEMA_VERSION + 1))
async def test_postgresql_of_every_version_keeps_every_row(cluster: Cluster, version: int) -> None:
    place = cluster.new_database()
    folder = Path(os.path.dirname(postgres.__file__), "migrations", "postgres")
    with psycopg.connect(place, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(postgres.query("postgres.make_schema").encode())
        for number, path in enumerate(sorted(folder.glob("*.sql"))[:version], 1):
            connection.execute(path.read_bytes())
            connection.execute(postgres.query("postgres.note_version").encode(), {"version": number})
        fill(connection)
        before = rows_in(connection)
        await postgres.migrate(place)
        after = rows_in(connection)
        applied = [row["version"] for row in after["kloros_schema"]]
    assert applied == list(range(1, postgres.SCHEMA_VERSION + 1))
    assert len(before) > 5
    for name, had in before.items():
        if name != "kloros_schema":
            assert [{column: row[column] for column in had[0]} for row in after[name]] == had, name
    store = await opened_at(place)
    thread_id = await opened_thread(store)
    assert (await post(store, thread_id, "x")).seq == 1
    await store.close()
