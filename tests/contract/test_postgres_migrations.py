"""How PostgreSQL's tables are brought up to this program: once, by whoever comes first, and never back."""

from __future__ import annotations

import asyncio
import os

import psycopg
import pytest

from orchestration.errors import StoreUnreachable
from orchestration.store import postgres
from tests.contract.bridging import opened_thread
from tests.contract.conftest import opened_at
from tests.contract.postgres import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres")]


async def test_many_who_start_at_once_migrate_once(cluster: Cluster) -> None:
    place = cluster.new_database()
    await asyncio.gather(*(postgres.migrate(place) for _ in range(8)))
    await postgres.migrate(place)
    with psycopg.connect(place) as connection:
        versions = connection.execute(b"SELECT version FROM kloros_schema ORDER BY version").fetchall()
    assert versions == [(number,) for number in range(1, postgres.SCHEMA_VERSION + 1)]


async def test_the_newest_migration_is_the_version_that_the_program_knows() -> None:
    folder = os.path.join(os.path.dirname(postgres.__file__), "migrations", "postgres")
    assert max(int(name[:4]) for name in os.listdir(folder)) == postgres.SCHEMA_VERSION


async def test_an_older_program_is_refused_and_changes_nothing(cluster: Cluster) -> None:
    place = cluster.new_database()
    store = await opened_at(place)
    thread_id = await opened_thread(store)
    await store.close()
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute(b"INSERT INTO kloros_schema (version) VALUES (99)")
    with pytest.raises(StoreUnreachable, match=r"schema version 99; this program knows \d+\n  a newer release wrote it"):
        await opened_at(place)
    with psycopg.connect(place) as connection:
        assert connection.execute(b"SELECT thread_id FROM bridge_threads").fetchall() == [(thread_id,)]


async def test_a_migration_that_fails_leaves_nothing(cluster: Cluster) -> None:
    place = cluster.new_database()
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute(b"CREATE TABLE bridge_chains (in_the_way integer)")
    with pytest.raises(StoreUnreachable, match="bridge_chains"):
        await postgres.migrate(place)
    with psycopg.connect(place) as connection:
        tables = connection.execute(b"SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert tables == [("bridge_chains",)]


async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with pytest.raises(StoreUnreachable, match="KLR_DATABASE_URL") as told:
        await opened_at("postgresql://somebody:s3cret@127.0.0.1:1/kloros")
    assert "s3cret" not in str(told.value)


async def test_a_database_that_keeps_no_utf_8_is_refused(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(b"CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StoreUnreachable, match="keeps text as LATIN1"):
        await opened_at(cluster.url("latin"))
