"""A line of PostgreSQL whose event loop does not tell of what has come."""

from __future__ import annotations

import asyncio
import os
import time

from psycopg.pq.abc import PGresult

from orchestration.bridge.store.postgres_line import Line
from orchestration.store.postgres import connected
from tests.contract.postgres import Cluster


def test_an_answer_that_the_loop_does_not_tell_of_is_found(cluster: Cluster) -> None:
    async def scene() -> list[PGresult]:
        line = Line(lambda: connected(cluster.url("postgres")))
        await line.open()
        answer = asyncio.ensure_future(line.asked(b"SELECT 7"))
        await asyncio.sleep(0)
        assert line._watched is not None
        asyncio.get_running_loop().remove_reader(line._watched)
        began = time.monotonic()
        while not answer.done() and time.monotonic() < began + 10:
            line.attend()
            await asyncio.sleep(0.05)
        assert time.monotonic() - began > 0.5, "it is given the time to come by itself"
        await line.close()
        assert answer.done()
        return answer.result()

    (found,) = asyncio.run(scene())
    assert found.get_value(0, 0) == b"7"


def test_a_closed_line_leaves_no_file_behind(cluster: Cluster) -> None:
    async def scene() -> None:
        line = Line(lambda: connected(cluster.url("postgres")))
        before = _open_files()
        for _ in range(3):
            await line.open()
            await line.asked(b"SELECT 1")
            await line.close()
        assert _open_files() == before

    asyncio.run(scene())


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
