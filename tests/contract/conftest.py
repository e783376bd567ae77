"""The stores that the bridge's contract is about: each in a fresh place, and each opened as often as a test likes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime

import psycopg
import pytest

from orchestration.bridge.port import Store
from orchestration.bridge.store.lookups import utc_now
from orchestration.bridge.store.postgres import PostgresStore
from orchestration.bridge.store.sqlite import SqliteStore
from orchestration.store import opening
from orchestration.store.opening import Place
from orchestration.store.port import Database
from orchestration.store.postgres_database import PostgresDatabase
from tests.contract import postgres
from tests.contract.postgres import Cluster

Open = Callable[..., Awaitable[Store]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of this worker's own. What the kernel has taken is safe from all that tests do to it, so no syncs."""
    if told := postgres.missing():
        pytest.skip(told)
    with postgres.running("fsync=off") as started:
        yield started


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))])
def place(request: pytest.FixtureRequest, tmp_path: os.PathLike[str]) -> str:
    """Where an empty store is: a file or an address."""
    if request.param == "sqlite":
        return os.path.join(tmp_path, "kloros.db")
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.new_database()


@pytest.fixture
def kernel_place(place: str) -> Place:
    """Where an empty store of the kernel's is, for the host `one`."""
    return Place("", place, here="one") if "://" in place else Place(place)


KEPT = ("leases", "kloros_schema", "shared_revision")
OpenKernel = Callable[[], Database]


@pytest.fixture(scope="session")
def scope_of_one(cluster: Cluster) -> str:
    """A database with the tables of a scope that the host `one` leads: to empty one is quicker than to make another."""
    url = cluster.new_database()
    db = PostgresDatabase(url, here="one")
    db.rows("leases.take", epoch=0, seconds=24 * 3600)
    db.close()
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))])
def ready_place(request: pytest.FixtureRequest, tmp_path: os.PathLike[str]) -> Place:
    """Where a store of the kernel's without rows is; in PostgreSQL for the host that leads its scope."""
    if request.param == "sqlite":
        return Place(os.path.join(tmp_path, "kloros.db"))
    url: str = request.getfixturevalue("scope_of_one")
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall()
        emptied = [name for (name,) in found if name not in KEPT and name[:7] != "bridge_"]
        connection.execute("; ".join(f"DELETE FROM {name}" for name in emptied).encode())
    return Place("", url, here="one")


@pytest.fixture
def open_kernel(ready_place: Place) -> Iterator[OpenKernel]:
    """Open the kernel's store as often as asked."""
    opened: list[Database] = []

    def open_again() -> Database:
        opened.append(opening.open_at(ready_place))
        return opened[-1]

    yield open_again
    for db in opened:
        db.close()


@pytest.fixture
def kernel_db(open_kernel: OpenKernel) -> Database:
    """The kernel's store, SQLite and PostgreSQL in turn."""
    return open_kernel()


async def opened_at(place: str, *, clock: Callable[[], datetime] = utc_now) -> Store:
    """Open the store at a place."""
    return await PostgresStore.opened(place, clock=clock) if "://" in place else SqliteStore(place, clock=clock)


@asynccontextmanager
async def store_at(place: str) -> AsyncIterator[Store]:
    """Open the store at a place until the end of the block."""
    store = await opened_at(place)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def open_store(place: str) -> AsyncIterator[Open]:
    """Open the store, as another process would, as often as asked; all are closed at the end."""
    stores: list[Store] = []

    async def opened(*, clock: Callable[[], datetime] = utc_now) -> Store:
        stores.append(await opened_at(place, clock=clock))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


@pytest.fixture
async def store(open_store: Open) -> Store:
    return await open_store()
