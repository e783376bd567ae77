"""The bridge's stores while databases are restarted, connections are cut, rows are locked, and writers are killed.

Whatever happens: no number is left out, given twice or out of order, nobody who reads along misses one, and what was
acknowledged is there, once.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.bridge.port import Store
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Ask, Change, Facts
from orchestration.bridge.store import postgres, sqlite_lane
from orchestration.bridge.store.postgres import PostgresStore
from orchestration.bridge.wire import MessagePosted
from orchestration.store.sqlite import LOG_PAGES, SqliteDatabase
from tests.contract.bridge_wire import Lost, Wire
from tests.contract.bridging import WORKSPACE, answers, opened_thread, post, posted_surely, posting, until
from tests.contract.conftest import opened_at, store_at
from tests.contract.postgres import Cluster

ROOT = Path(__file__).parents[2]
WRITERS, AT_LEAST, DEADLINE = 6, 100, 60.0
FEW = settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))


class World:
    """A thread, those who write to it, one who reads along, and what they were told."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.thread_id = ""
        self.told: dict[tuple[str, int], int] = {}
        self.read: list[tuple[int, str]] = []
        self._stores: list[Store] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._process: Process | None = None
        self._stopping = False

    async def start(self) -> None:
        self._stores = [await opened_at(self.place) for _ in range(2)]
        self.thread_id = await opened_thread(self._stores[0])
        work = [self._write(number) for number in range(WRITERS)]
        self._tasks = [asyncio.ensure_future(todo) for todo in (*work, self._read_along(), self._feed_process())]

    async def some_more(self) -> None:
        """Wait until writers have got on."""
        enough = len(self.told) + AT_LEAST
        async with asyncio.timeout(DEADLINE):
            while len(self.told) < enough:
                await asyncio.sleep(0.005)
                for task in self._tasks:
                    if task.done():
                        task.result()

    async def restart_store(self) -> None:
        """Close one of the stores while it is written to, as a server that ends does; open it again."""
        stale = self._stores[1]
        self._stores[1] = await opened_at(self.place)
        await stale.close()

    async def kill_process(self) -> None:
        """Kill the writer in a process of its own once it has been acknowledged something."""
        before = len([name for name, _ in self.told if name == "process"])
        async with asyncio.timeout(DEADLINE):
            while len([name for name, _ in self.told if name == "process"]) <= before:
                await asyncio.sleep(0.005)
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Stop writing, let the reader come to the end, and compare."""
        await self.kill_process()
        self._stopping = True
        with suppress(ProcessLookupError):
            cast("Process", self._process).kill()
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*self._tasks)
        store = self._stores[0]
        messages = (await store.read(self.thread_id, reader="", since_seq=0, limit=10**6)).messages
        assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
        assert self.read == [(message.seq, message.body) for message in messages]
        assert len({message.body for message in messages}) == len(messages)
        stands = {message.body: message.seq for message in messages}
        assert {key: stands.get(f"{key[0]} {key[1]}") for key in self.told} == self.told
        for name in {name for name, _ in self.told}:
            of_one = [message.seq for message in messages if message.sender == name]
            assert [stands[f"{name} {number}"] for number in range(len(of_one))] == of_one
        found = await store.verify()
        assert not found.faults
        assert found.entries == len(messages) + 1
        for store in self._stores:
            await store.close()

    async def _write(self, writer: int) -> None:
        name, number = f"writer-{writer}", 0
        while not self._stopping:
            answer = await posted_surely(lambda: self._stores[writer % 2], self.thread_id, name, number)
            self.told[name, number] = answer.seq
            number += 1

    async def _read_along(self) -> None:
        since = 0
        while True:
            store = self._stores[since % 2]
            stopping = self._stopping and all(task.done() for task in self._tasks if task is not asyncio.current_task())
            with suppress(Refused):
                messages = (await store.read(self.thread_id, reader="", since_seq=since, limit=7)).messages
                self.read += [(message.seq, message.body) for message in messages]
                since = messages[-1].seq if messages else since
                if stopping and not messages:
                    return
                if not messages:
                    await store.wait_for_news(self.thread_id, since_seq=since, seconds=0.1)
            await asyncio.sleep(0.001)

    async def _feed_process(self) -> None:
        """Keep a writer in a process of its own going: each goes on where the one before was cut off."""
        number = 0
        while not self._stopping:
            command = [
                sys.executable,
                "-m",
                "tests.contract.bridge_writer",
                self.place,
                self.thread_id,
                "process",
                str(number),
            ]
            self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=DEVNULL)
            assert self._process.stdout is not None
            while line := await self._process.stdout.readline():
                if line.endswith(b"\n"):
                    number, seq = map(int, line.split())
                    self.told["process", number] = seq
                    number += 1
            await self._process.wait()


Fault = Callable[[World], Awaitable[None]]


def carried_out(place: str, faults: list[Fault]) -> None:
    async def story() -> None:
        world = World(place)
        await world.start()
        for fault in faults:
            await world.some_more()
            await fault(world)
        await world.some_more()
        await world.end()

    asyncio.run(story())


@FEW
@given(names=st.permutations(["lock", "restart the store", "kill the process", "nothing"]))
def test_nothing_is_lost_in_sqlite(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    async def lock(world: World) -> None:
        holder = sqlite3.connect(world.place, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(0.2)
        holder.execute("ROLLBACK")
        holder.close()

    async def nothing(world: World) -> None:
        pass

    faults: dict[str, Fault] = {
        "lock": lock, "restart the store": World.restart_store, "kill the process": World.kill_process, "nothing": nothing,
    }  # fmt: skip
    carried_out(str(tmp_path_factory.mktemp("world") / "kloros.db"), [faults[name] for name in names])


@pytest.mark.xdist_group("postgres")
@FEW
@given(
    names=st.permutations(["lock", "cut", "restart the server", "crash the server", "restart the store", "kill the process"])
)
def test_nothing_is_lost_in_postgres(cluster: Cluster, names: list[str]) -> None:
    async def lock(world: World) -> None:
        async with await psycopg.AsyncConnection.connect(world.place) as holder:
            await holder.execute(b"SELECT * FROM bridge_threads WHERE thread_id = %s FOR UPDATE", (world.thread_id,))
            await asyncio.sleep(0.2)

    async def cut(world: World) -> None:
        async with await psycopg.AsyncConnection.connect(world.place, autocommit=True) as other:
            for _ in range(5):
                await other.execute(
                    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    b" WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                await asyncio.sleep(0.02)

    async def restart(world: World) -> None:
        await asyncio.to_thread(cluster.stop)
        await asyncio.to_thread(cluster.start)

    async def crash(world: World) -> None:
        await asyncio.to_thread(cluster.stop, "immediate")
        await asyncio.to_thread(cluster.start)

    faults: dict[str, Fault] = {
        "lock": lock, "cut": cut, "restart the server": restart, "crash the server": crash,
        "restart the store": World.restart_store, "kill the process": World.kill_process,
    }  # fmt: skip
    carried_out(cluster.new_database(), [faults[name] for name in names])


async def refusal(asked: Awaitable[object]) -> Refused:
    with pytest.raises(Refused) as refused:
        async with asyncio.timeout(10):
            await asked
    return refused.value


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_a_server_that_is_gone_is_told_at_once_and_found_again(cluster: Cluster) -> None:
    async with store_at(cluster.new_database()) as store:
        thread_id = await opened_thread(store)
        await asyncio.to_thread(cluster.stop)
        try:
            for asked in (post(store, thread_id, "x"), store.thread(thread_id), store.check()):
                refused = await refusal(asked)
                assert (refused.code, refused.rule, refused.retry_after) == (Code.UNAVAILABLE, "store.unavailable", 1)
            assert store.figures()["down"] == 1
            for asked in (post(store, thread_id, "x"), store.thread(thread_id), store.check()):
                with pytest.raises(Refused):
                    asked.send(None)  # nothing is waited for, not even one turn of the loop
        finally:
            await asyncio.to_thread(cluster.start)
        async with asyncio.timeout(20):
            assert (await posted_surely(lambda: store, thread_id, "late", 1)).seq == 1
        await store.check()


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_a_store_that_only_reads_notices_an_outage_also_with_every_connection_in_use(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would come back when the pool tries again, which it does after 1, 2, 4, … seconds."""
    place = cluster.new_database()
    async with store_at(place) as store:
        assert isinstance(store, PostgresStore)
        thread_id, pool = await opened_thread(store), store._pool
        with monkeypatch.context() as filling:
            filling.setattr(pool, "timeout", DEADLINE)  # the server may be slow, and who listens may look meanwhile as well
            async with await psycopg.AsyncConnection.connect(place) as holder:
                await holder.execute("LOCK TABLE bridge_threads IN ACCESS EXCLUSIVE MODE")
                reading = [asyncio.ensure_future(store.thread(thread_id)) for _ in range(8)]
                await until(lambda: store.figures()["pool_size"] == 8)
            await asyncio.gather(*reading)
            await until(lambda: store.figures()["pool_available"] == 8)
        cluster.stop("immediate")
        try:
            with pytest.raises(Refused):
                await store.thread(thread_id)
            assert store.figures()["down"] == 1
        finally:
            cluster.start()
        await until(lambda: store.figures()["down"] == 0)
        assert store._pool is not pool
        await until(lambda: store.figures()["pool_available"] == 1)
        assert await store.thread(thread_id) is not None


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_connections_that_were_cut_are_noticed_by_nobody(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_CHECKOUT_SECONDS", DEADLINE)  # from a server that is as slow as you like
    place = cluster.new_database()
    async with store_at(place) as store:
        thread_id = await opened_thread(store)
        for number in range(1, 4):
            with psycopg.connect(place, autocommit=True) as other:
                other.execute(
                    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    b" WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            assert (await post(store, thread_id, "x")).seq == number
            assert len((await store.read(thread_id, reader="", since_seq=0, limit=9)).messages) == number


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
@pytest.mark.parametrize("busy", [False, True])
async def test_a_commit_whose_answer_is_lost_is_found_and_not_made_twice(
    cluster: Cluster, tmp_path: Path, busy: bool
) -> None:
    wire, place = Wire(tmp_path, cluster), cluster.new_database()
    async with wire.laid(place) as address, store_at(address) as store, store_at(place) as other:
        thread_id = await opened_thread(store)
        assert (await post(store, thread_id, "before")).seq == 1

        def plan(facts: Facts) -> Change[MessagePosted]:
            wire.lose_next = None if lost else Lost.ANSWER
            lost.append(facts.next_seq)
            return posting("lost")(facts)

        lost: list[int] = []
        agent = "somebody new, whose rate must be looked up" if busy else "executioner"
        answer = await store.change(Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=agent), plan)
        assert not wire.lose_next
        assert (answer.seq, lost) == (2, [2])
        assert (await post(other, thread_id, "after")).seq == 3
        assert (await post(store, thread_id, "after that")).seq == 4
        assert not (await store.verify()).faults


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_closing_always_ends(cluster: Cluster) -> None:
    """Whatever it is about just then: telling others of a post, above all."""
    place = cluster.new_database()
    async with asyncio.timeout(DEADLINE):
        for _ in range(60):
            async with store_at(place) as store:
                await opened_thread(store)


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_closing_ends_also_when_the_loop_does_not_tell_of_an_answer(cluster: Cluster) -> None:
    store = await opened_at(cluster.new_database())
    assert isinstance(store, PostgresStore)
    telling = store._telling
    async with asyncio.timeout(DEADLINE):
        thread_id = await opened_thread(store)
        while telling._watched is None or telling._answered is not None:
            await asyncio.sleep(0)
        asyncio.get_running_loop().remove_reader(telling._watched)
        await post(store, thread_id, "told to others")
        while telling._answered is None:
            await asyncio.sleep(0)
        await store.close()


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_closing_leaves_no_connection_behind(cluster: Cluster, tmp_path: Path) -> None:
    """Whatever it is about just then: making one, above all; and what the collector would close does not count."""
    wire, place = Wire(tmp_path, cluster), cluster.new_database()
    gc.collect()
    gc.disable()
    try:
        async with asyncio.timeout(DEADLINE), wire.laid(place) as address:
            for turns in range(60):
                store = await opened_at(address)
                if turns % 2:
                    await opened_thread(store)
                for _ in range(turns):
                    await asyncio.sleep(0)
                await store.close()
                await asyncio.gather(*wire.carrying)
    finally:
        gc.enable()


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_closing_leaves_nothing_at_work_also_right_after_an_outage(cluster: Cluster) -> None:
    """The connections of before are closed beside all else; here one of them is still being made."""

    class BeingMade:
        async def run(self) -> None:
            await made.wait()

    before, made = asyncio.all_tasks(), asyncio.Event()
    store = await opened_at(cluster.new_database())
    assert isinstance(store, PostgresStore)
    store._pool.run_task(cast("Any", BeingMade()))
    store.lost(OSError())
    await until(lambda: store.figures()["down"] == 0)
    closing = asyncio.ensure_future(store.close())
    await asyncio.wait([closing], timeout=0.5)
    made.set()
    await closing
    assert asyncio.all_tasks() <= before


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_who_asks_a_closed_store_opens_nothing(cluster: Cluster) -> None:
    before = asyncio.all_tasks()
    store = await opened_at(cluster.new_database())
    await store.close()
    for asked in (store.thread("thr_1"), store.read_text("thr_1", reader="", since_seq=0, limit=1)):
        assert (await refusal(asked)).code == Code.UNAVAILABLE
    assert store.figures()["down"] == 0
    assert asyncio.all_tasks() <= before


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_who_waits_for_a_connection_when_all_are_replaced_reads_over_a_new_one(cluster: Cluster) -> None:
    async with store_at(cluster.new_database()) as store:
        assert isinstance(store, PostgresStore)
        thread_id, pool = await opened_thread(store), store._pool
        pool.timeout = DEADLINE
        taken = [await pool.getconn() for _ in range(8)]
        reading = asyncio.ensure_future(store.thread(thread_id))
        await until(lambda: store.figures()["pool_waiting"] == 1)
        store.lost(OSError())
        (found,) = await answers([reading])
        for connection in taken:
            await pool.putconn(connection)
        assert store._pool is not pool
        assert not isinstance(found, BaseException)
        assert store.figures()["down"] == 0


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_it_hears_others_again_when_its_connection_was_cut(cluster: Cluster) -> None:
    place = cluster.new_database()
    async with store_at(place) as store, asyncio.timeout(DEADLINE):
        for heard in (1, 0, 1):
            while store.figures()["listening"] != heard:
                await asyncio.sleep(0.01)
            if heard:
                async with await psycopg.AsyncConnection.connect(place, autocommit=True) as other:
                    await other.execute(
                        b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        b" WHERE datname = current_database() AND query LIKE '%LISTEN%' AND pid <> pg_backend_pid()"
                    )


@pytest.mark.anyio
@pytest.mark.xdist_group("postgres")
async def test_a_thread_that_another_holds_keeps_no_other_waiting(cluster: Cluster) -> None:
    place = cluster.new_database()
    async with store_at(place) as store:
        ids = [await opened_thread(store) for _ in range(8)]
        async with await psycopg.AsyncConnection.connect(place) as holder:
            await holder.execute(b"SELECT * FROM bridge_threads WHERE thread_id = %s FOR UPDATE", (ids[0],))
            results = await asyncio.gather(*(post(store, thread_id, "x") for thread_id in ids), return_exceptions=True)
        assert isinstance(results[0], Refused)
        assert results[0].code == Code.UNAVAILABLE
        assert not [result for result in results[1:] if isinstance(result, BaseException)]


@pytest.mark.anyio
async def test_a_file_that_another_holds_is_told_and_used_again(tmp_path: Path) -> None:
    place = str(tmp_path / "kloros.db")
    async with store_at(place) as store:
        thread_id = await opened_thread(store)
        holder = sqlite3.connect(place, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        assert (await refusal(post(store, thread_id, "x"))).code == Code.UNAVAILABLE
        assert (await store.read(thread_id, reader="", since_seq=0, limit=1)).thread is not None
        holder.execute("ROLLBACK")
        holder.close()
        assert (await post(store, thread_id, "x")).seq == 1


@pytest.mark.anyio
async def test_what_waits_when_a_store_is_closed_is_committed(tmp_path: Path) -> None:
    place = str(tmp_path / "kloros.db")
    store = await opened_at(place)
    thread_id = await opened_thread(store)
    posts = [asyncio.ensure_future(post(store, thread_id, f"{n}")) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert [answer.seq for answer in await asyncio.gather(*posts)] == list(range(1, 51))
    assert (await refusal(post(store, thread_id, "late"))).code == Code.UNAVAILABLE


@pytest.mark.anyio
async def test_no_commit_has_to_copy_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_lane, "_QUICK", DEADLINE)  # on a disk that is as slow as you like
    place = str(tmp_path / "kloros.db")
    store = await opened_at(place)
    try:
        thread_id = await opened_thread(store)
        for number in range(600):
            await post(store, thread_id, f"message {number}")
        assert Path(f"{place}-wal").stat().st_size < LOG_PAGES * 4096  # where a commit would begin to
    finally:
        await store.close()


@pytest.mark.anyio
async def test_no_tick_has_to_copy_what_the_bridge_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_lane, "_QUICK", DEADLINE)
    place = tmp_path / "kloros.db"
    async with store_at(str(place)) as store:
        thread_id = await opened_thread(store)
        for number in range(250):
            await post(store, thread_id, f"message {number}")
        assert place.with_name("kloros.db-wal").stat().st_size > 1000 * 4096, "where SQLite begins to, by its own measure"
        before = place.read_bytes()
        database = SqliteDatabase(str(place))
        with database.transaction():
            database.run("facts.set", name="tick", value="1")
        database.close()
        assert place.read_bytes() == before


@pytest.mark.anyio
async def test_a_busy_bridge_lets_the_ticks_write(tmp_path: Path) -> None:
    place = str(tmp_path / "kloros.db")

    def tick() -> float:
        """Write as a tick does; return the longest wait."""
        database, longest = SqliteDatabase(place), 0.0
        for number in range(20):
            began = time.monotonic()
            with database.transaction():
                database.run("facts.set", name="tick", value=str(number))
            longest = max(longest, time.monotonic() - began)
        database.close()
        return longest

    async with store_at(place) as store:
        ids = [await opened_thread(store) for _ in range(4)]
        posting_on = asyncio.Event()

        async def write(writer: int) -> None:
            while not posting_on.is_set():
                await post(store, ids[writer % 4], "x", sender=f"a{writer}")

        writers = [asyncio.ensure_future(write(number)) for number in range(32)]
        while (busy := store.figures()["changes"]) < 200:
            await asyncio.sleep(0.001)
        longest = await asyncio.to_thread(tick)
        posting_on.set()
        await asyncio.gather(*writers)
        assert store.figures()["changes"] > busy
    assert longest < 5  # a tick gives up after ten seconds
