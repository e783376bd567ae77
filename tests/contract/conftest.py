"""The stores that the bridge's contract is about: each in a fresh place, and each opened as often as a test likes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime

import pytest

from orchestration.bridge.port import Store
from orchestration.bridge.store.lookups import utc_now
from orchestration.bridge.store.postgres import PostgresStore
from orchestration.bridge.store.sqlite import SqliteStore
from orchestration.store.opening import Place
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


async def opened_at(place: str, *, clock: Callable[[], datetime] = utc_now) -> Store:
    """Open the store at a place."""
    return await PostgresStore.opened(place, clock=clock) if "://" in place else SqliteStore(place, clock=clock)


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
