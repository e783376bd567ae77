"""How much a look for agents to wake costs, over many threads of which few have unread messages: `wakes.py [--postgres]`.

Prints the first look, which sees every thread, and what later ones take: nothing changed; some threads changed; a claim and
its end. Each as wall time and as CPU time of this process; PostgreSQL's own comes on top, and is in the wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import psycopg

from orchestration.bridge.wake.state import Outcome, Status
from tests.contract import postgres
from tests.contract.bridging import WORKSPACE, opened_thread
from tests.contract.conftest import opened_at
from tests.contract.waking import LEASE, made_of_unread, told, wakes_at

AT = "2026-11-21T12:00:00.000000Z"
MESSAGES, AGENTS = 10, ("executioner", "reviewer", "watcher")


def filled(execute: Callable[[str], Any], threads: int, unread: int, *, padded: str, words: str) -> None:
    """Make threads in which everybody has read all but the last one's own words, and some in which nobody has.

    Args:
        padded: SQL that pads a number to 32 digits. words: what a message has beside the columns that both stores have.
    """

    def numbers(many: int) -> str:
        return f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})"

    thread, of_message = f"'thr_' || {padded.format('i')}", f"'thr_' || {padded.format(f'((i - 1) / {MESSAGES} + 1)')}"
    execute(
        f"INSERT INTO bridge_threads {numbers(threads)} SELECT {thread}, '{WORKSPACE}', 't', 'workflow', 'active', '',"
        f" 'executioner', {MESSAGES}, '{AT}', '{AT}', 0, '', '[]', 0, 0, 0, 0, '{'0' * 64}', 1 FROM n"
    )
    for number, agent in enumerate(AGENTS):
        # The first agent has said the last two messages, and reads its own words never.
        behind = f"CASE WHEN i <= {unread} THEN 0 ELSE {MESSAGES - 2 * (number == 0)} END"
        execute(
            f"INSERT INTO bridge_participants {numbers(threads)}"
            f" SELECT {thread}, '{agent}', 'participant', '{AT}', {behind} FROM n"
        )
    sender = f"CASE WHEN (i - 1) % {MESSAGES} >= {MESSAGES - 2} THEN 'executioner' ELSE 'reviewer' END"
    columns = "thread_id, seq, message_id, sender, kind, body, metadata, created_at, traceparent, thread_status"
    execute(
        f"INSERT INTO bridge_messages ({columns}, payload_sha256{words and ', words'}) {numbers(threads * MESSAGES)}"
        f" SELECT {of_message}, (i - 1) % {MESSAGES} + 1, 'msg_' || i, {sender}, 'chat', 'x', '{{}}', '{AT}', '', 'active',"
        f" ''{words} FROM n"
    )


async def measured(what: str, times: int, act: Callable[[], Awaitable[Any]]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        await act()
    wall, used = time.perf_counter() - began, time.process_time() - cpu
    print(f"{what:42} {wall / times * 1000:8.2f} ms  {used / times * 1000:8.2f} ms of CPU")


async def main(place: str, threads: int, unread: int) -> None:
    store = await opened_at(place)
    if "://" in place:
        with psycopg.connect(place, autocommit=True) as connection:

            def execute(text: str) -> None:
                connection.execute(text.encode())

            filled(execute, threads, unread, padded="lpad(({})::text, 32, '0')", words=", ''")
            connection.execute(b"ANALYZE")
    else:
        with sqlite3.connect(place) as db:
            filled(db.execute, threads, unread, padded="printf('%032d', {})", words="")
    wakes = await wakes_at(place, clock=lambda: datetime.now(UTC))
    print(f"{threads} threads, {len(AGENTS)} agents each, {unread} with unread messages")
    await measured("first look, all threads", 1, wakes.cases)
    print(f"  {len(await wakes.cases(limit=10_000))} cases")
    await measured("look, nothing has changed", 50, wakes.cases)
    await measured("look, for an agent that has no case", 50, lambda: wakes.cases(agents=["nobody"]))
    await measured("waiting for work, a second", 3, lambda: wakes.wait_for_work(seconds=1))
    busy = [await opened_thread(store) for _ in range(50)]

    async def busy_look() -> None:
        await asyncio.gather(*(told(store, thread_id) for thread_id in busy))
        before = time.process_time()
        await wakes.cases()
        spent.append(time.process_time() - before)

    spent: list[float] = []
    await measured("50 posts in 50 threads, and a look", 20, busy_look)
    print(f"{'  of which the look':42} {'':8}     {sum(spent) / len(spent) * 1000:8.2f} ms of CPU")

    async def woken() -> None:
        wake = made_of_unread(busy[0])
        await wakes.queue(wake)
        claim = await wakes.claim(wake.trigger_id, holder="one", lease=LEASE)
        assert claim is not None
        await wakes.settle(claim, status=Status.DONE, outcome=Outcome.TRIGGERED)

    await measured("a trigger made, claimed and ended", 50, woken)
    await wakes.close()
    await store.close()


async def everything() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--threads", type=int, default=10_000)
    parser.add_argument("--unread", type=int, default=5)
    asked = parser.parse_args()
    async with AsyncExitStack() as stack:
        if asked.postgres:
            place = stack.enter_context(postgres.running()).new_database()
        else:
            place = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "kloros.db")
        await main(place, asked.threads, asked.unread)


if __name__ == "__main__":
    asyncio.run(everything())
