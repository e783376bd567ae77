"""The bridge's store behind PgBouncer in transaction mode, where each transaction may meet another session."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.contract.bridging import opened_thread, post
from tests.contract.conftest import store_at
from tests.contract.postgres import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres")]
SETTINGS = """
[databases]
* = host={server} user=postgres
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = 3
pidfile = {folder}/pid
logfile = {folder}/log
"""


@asynccontextmanager
async def pooled(place: str, cluster: Cluster) -> AsyncIterator[str]:
    """Give the address of a database behind a pooler."""
    if shutil.which("pgbouncer") is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    folder = tempfile.mkdtemp(prefix="kloros-pooler-")
    try:
        with open(f"{folder}/ini", "w", encoding="utf-8") as file:
            file.write(SETTINGS.format(folder=folder, server=cluster.folder))
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(folder, user)
            os.chmod(f"{folder}/ini", 0o644)
        process = subprocess.Popen(
            ["pgbouncer", "--quiet", f"{folder}/ini"], user=user, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(20):
                while not os.path.exists(f"{folder}/.s.PGSQL.6432"):
                    await asyncio.sleep(0.01)
            yield place.replace(cluster.folder, folder) + "&port=6432"
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder)


async def test_a_pooler_may_hand_out_any_session(cluster: Cluster) -> None:
    async with pooled(cluster.new_database(), cluster) as place, store_at(place) as one, store_at(place) as other:
        stores = (one, other)
        ids = [await opened_thread(stores[0]) for _ in range(4)]

        async def write(writer: int) -> None:
            for number in range(15):
                await post(stores[writer % 2], ids[number % 4], f"{writer} {number}", sender=f"a{writer}", key=f"{number}")

        waiting = asyncio.ensure_future(stores[0].wait_for_news(ids[0], since_seq=9, seconds=30))
        await asyncio.gather(*map(write, range(8)))
        assert await waiting
        for thread_id, count in zip(ids, (32, 32, 32, 24), strict=True):
            messages = (await stores[1].read(thread_id, reader="", since_seq=0, limit=100)).messages
            assert [message.seq for message in messages] == list(range(1, count + 1))
        assert len(await stores[0].search("7", workspace_id="kloros", limit=200)) == 22
        assert len(await stores[0].audit(workspace_id="kloros", limit=200)) == 124
        assert not (await stores[0].verify()).faults
        from_elsewhere = asyncio.ensure_future(stores[1].wait_for_news(ids[0], since_seq=32, seconds=30))
        await post(stores[0], ids[0], "told to nobody: a pooler keeps no session that listens")
        assert await from_elsewhere
        assert stores[1].figures()["listening"] == 0
