"""What the bridge's store makes of a database: `python -m tests.benchmarks.bridge_store [--write]`.

Posts a second through the store (facts, plan, message, audit, in one group commit) beside bare psycopg: one prepared
statement that numbers and inserts a row, each in its own commit, at the same number of clients. Reads of 50 messages out of
10,000 beside the bare prepared query. The sides take turns of half a second; medians. PostgreSQL as Debian sets it up,
syncs included. Every post is read back afterwards. `--write` puts the figures into docs/reference/benchmarks.md.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import psycopg

from orchestration.bridge.port import Store
from orchestration.bridge.store.postgres import PostgresStore
from orchestration.bridge.store.sqlite import SqliteStore
from tests.benchmarks import page
from tests.benchmarks.tick import _machine
from tests.contract.bridging import new_id, opened_thread, post
from tests.contract.postgres import running

TURNS, SECONDS = 9, 0.5
SHAPES = ((1, 1, "≥ 0.25"), (8, 1, "≥ 0.7"), (32, 1, "≥ 1.5"), (32, 32, "≥ 0.35"))
BODY = "The fix is on branch retry-2; tests pass here. " * 4
MARKS = ("<!-- bridge store: written by tests/benchmarks/bridge_store.py -->", "<!-- /bridge store -->")
_TABLES = b"""
CREATE TABLE bare_threads (thread_id text PRIMARY KEY, last_seq bigint NOT NULL) WITH (fillfactor = 40);
CREATE TABLE bare_messages (
    thread_id text NOT NULL, seq bigint NOT NULL, message_id text NOT NULL, sender text NOT NULL, kind text NOT NULL,
    body text NOT NULL, metadata text NOT NULL, in_reply_to text, addressee text,
    created_at timestamptz NOT NULL DEFAULT now(), traceparent text NOT NULL DEFAULT '', PRIMARY KEY (thread_id, seq))
"""
_POST = b"""
WITH numbered AS (UPDATE bare_threads SET last_seq = last_seq + 1 WHERE thread_id = %s RETURNING thread_id, last_seq)
INSERT INTO bare_messages (thread_id, seq, message_id, sender, kind, body, metadata)
SELECT thread_id, last_seq, %s, %s, 'chat', %s, '{}' FROM numbered RETURNING seq, created_at
"""
_READ = b"SELECT * FROM bare_messages WHERE thread_id = %s AND seq > %s ORDER BY seq LIMIT 50"

Client = Callable[[int], Awaitable[object]]
"""Does one thing, given the number of the client."""


async def main() -> None:
    """Measure, print, and write if asked to."""
    lines = [f"Measured on {datetime.now(UTC):%Y-%m-%d}: {_machine()}", ""]
    lines += ["| measured | store | a second | bare psycopg | ratio | goal over HTTP |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory(prefix="kloros-benchmark-") as folder, running() as cluster:
        url = cluster.new_database()
        postgres, sqlite = await PostgresStore.opened(url), SqliteStore(f"{folder}/kloros.db")
        connections = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(32)]
        await connections[0].execute(_TABLES)
        for clients, threads, goal in SHAPES:
            lines += await _posts(clients, threads, goal, connections, [("PostgreSQL", postgres), ("SQLite", sqlite)])
        lines += await _reads(connections, [("PostgreSQL", postgres), ("SQLite", sqlite)])
        for connection in connections:
            await connection.close()
        for store in (postgres, sqlite):
            assert not (await store.verify()).faults
            await store.close()
    print("\n".join(lines))
    if "--write" in sys.argv[1:]:
        page.write(MARKS, "\n".join(lines))


async def _posts(
    clients: int, threads: int, goal: str, connections: list[psycopg.AsyncConnection], stores: list[tuple[str, Store]]
) -> list[str]:
    ids = [new_id() for _ in range(threads)]
    for thread_id in ids:
        await connections[0].execute(b"INSERT INTO bare_threads VALUES (%s, 0)", (thread_id,))

    async def bare(client: int) -> None:
        values = (ids[client % threads], new_id("msg"), f"agent-{client}", BODY)
        await (await connections[client].execute(_POST, values)).fetchone()

    sides = [bare, *[await _posting(store, threads) for _, store in stores]]
    rates = await _in_turns(sides, clients)
    for (_, store), posting in zip(stores, sides[1:], strict=True):
        await _all_there(store, posting)
    what = f"posts, {clients} clients on {threads} threads".replace("1 clients", "1 client").replace("1 threads", "1 thread")
    return [
        _line(what, name, rate, rates[0], goal if name == "PostgreSQL" else "")
        for (name, _), rate in zip(stores, rates[1:], strict=True)
    ]


_posted: dict[Client, tuple[list[str], dict[str, int]]] = {}


async def _posting(store: Store, threads: int) -> Client:
    ids = [await opened_thread(store) for _ in range(threads)]
    counts = dict.fromkeys(ids, 0)

    async def posting(client: int) -> None:
        thread_id = ids[client % threads]
        await post(store, thread_id, BODY, sender=f"agent-{client}", key=new_id())
        counts[thread_id] += 1

    _posted[posting] = (ids, counts)
    return posting


async def _all_there(store: Store, posting: Client) -> None:
    ids, counts = _posted[posting]
    for thread_id in ids:
        seqs = [m.seq for m in (await store.read(thread_id, reader="", since_seq=0, limit=10**7)).messages]
        assert seqs == list(range(1, counts[thread_id] + 1)), thread_id


async def _reads(connections: list[psycopg.AsyncConnection], stores: list[tuple[str, Store]]) -> list[str]:
    bare_id = new_id()
    await connections[0].execute(
        b"INSERT INTO bare_messages (thread_id, seq, message_id, sender, kind, body, metadata)"
        b" SELECT %s, n, 'msg_' || md5(n::text), 'agent', 'chat', %s, '{}' FROM generate_series(1, 10000) n",
        (bare_id, BODY),
    )
    await connections[0].execute(b"ANALYZE")

    async def bare(client: int) -> None:
        cursor = await connections[client].execute(_READ, (bare_id, 37 * client + 5000))
        assert len(await cursor.fetchall()) == 50

    sides: list[Client] = [bare]
    for _, store in stores:
        thread_id = await opened_thread(store)
        for _ in range(20):
            await asyncio.gather(*(post(store, thread_id, BODY) for _ in range(500)))
        sides.append(_reading(store, thread_id))
    rates = await _in_turns(sides, 8)
    what = "reads of 50 out of 10,000, 8 clients"
    return [
        _line(what, name, rate, rates[0], "≥ 0.5" if name == "PostgreSQL" else "")
        for (name, _), rate in zip(stores, rates[1:], strict=True)
    ]


def _reading(store: Store, thread_id: str) -> Client:
    async def reading(client: int) -> None:
        since = 37 * client + 5000
        assert (await store.read_text(thread_id, reader="reviewer", since_seq=since, limit=50)).next_seq == since + 50

    return reading


async def _in_turns(sides: list[Client], clients: int) -> list[float]:
    """Return how often a second each side does its thing; the first turn warms up and does not count."""
    rates: list[list[float]] = [[] for _ in sides]
    for turn in range(TURNS + 1):
        for side, into in zip(sides, rates, strict=True):
            rate = await _rate(side, clients)
            if turn:
                into.append(rate)
    return [statistics.median(rate) for rate in rates]


async def _rate(side: Client, clients: int) -> float:
    began = time.perf_counter()
    done = 0

    async def go_on(client: int) -> None:
        nonlocal done
        while time.perf_counter() < began + SECONDS:
            await side(client)
            done += 1

    await asyncio.gather(*map(go_on, range(clients)))
    return done / (time.perf_counter() - began)


def _line(what: str, store: str, ours: float, bare: float, goal: str) -> str:
    return f"| {what} | {store} | {ours:,.0f} | {bare:,.0f} | {ours / bare:.2f} | {goal} |"


if __name__ == "__main__":
    asyncio.run(main())
