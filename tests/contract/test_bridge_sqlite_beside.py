"""The process that writes to SQLite beside the bridge, while it is killed, stopped, too late, and kept from writing."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Ask, Change, Facts, Plan
from orchestration.bridge.store import lane, recent, sqlite_beside, sqlite_lane, sqlite_locked, sqlite_process
from orchestration.bridge.store.sqlite import SqliteStore
from orchestration.bridge.store.sqlite_beside import Beside
from orchestration.bridge.store.sqlite_file import Turns
from orchestration.bridge.wire import MessagePosted, ThreadStatus
from orchestration.store.sqlite import SqliteDatabase
from tests import waiting
from tests.contract.bridging import AGENT, DEADLINE, WORKSPACE, answers, note, opened_thread, post, posting, until
from tests.contract.conftest import store_at

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


class Scene:
    """A thread in a store that writes by its process, and another store over the same file."""

    def __init__(self, place: str, store: SqliteStore, thread_id: str) -> None:
        self.place, self.store, self.thread_id = place, store, thread_id
        self.beside: Beside = store._lane._beside

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self.beside._process is not None
        return self.beside._process

    def ask(self, plan: Plan[Any], *, key: str | None = None) -> asyncio.Task[Any]:
        ask = Ask(workspace_id=WORKSPACE, thread_id=self.thread_id, agent_id=AGENT, idempotency_key=key)
        return asyncio.ensure_future(self.store.change(ask, plan))

    def post(self, *bodies: str, keyed: bool = False) -> list[asyncio.Task[MessagePosted]]:
        keys = [body if keyed else None for body in bodies]
        return [self.ask(posting(body, key=key), key=key) for body, key in zip(bodies, keys, strict=True)]

    async def sent(self, many: int) -> None:
        """Wait until so many batches are on their way."""
        await until(lambda: len(self.beside._asked) == many)

    async def bodies(self) -> list[str]:
        """Read the thread back by another store, and see that nothing is wrong with it."""
        async with store_at(self.place) as other:
            messages = (await other.read(self.thread_id, reader="", since_seq=0, limit=999)).messages
            assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
            assert not (await other.verify()).faults
        return [message.body for message in messages]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have the process do nothing for a while."""
        self.process.send_signal(signal.SIGSTOP)
        yield
        self.process.send_signal(signal.SIGCONT)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Have another process keep everybody from writing for a while."""
        holder = sqlite3.connect(self.place, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")
        holder.close()


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(recent, "_RATES_COUNT_FOR", DEADLINE)  # on a machine that is as slow as you like
    monkeypatch.setattr(lane, "_ANSWERED_IN", DEADLINE)  # longer than any write that is held
    monkeypatch.setattr(sqlite_beside, "_AGAIN", 0.0)
    place = str(tmp_path / "kloros.db")
    async with store_at(place) as store:
        assert isinstance(store, SqliteStore)
        thread_id = await opened_thread(store)
        await post(store, thread_id, "first")
        scene = Scene(place, store, thread_id)
        store._lane._crowd = 100.0  # as if many had posted
        scene.beside.start()
        await until(lambda: scene.beside.is_up)
        yield scene
        if (left := scene.beside._process) is not None:
            left.send_signal(signal.SIGCONT)  # that it may go


async def test_it_comes_up_when_many_post_and_goes_with_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_lane, "_QUICK", DEADLINE)  # on a disk that is as slow as you like
    async with store_at(str(tmp_path / "kloros.db")) as store:
        assert isinstance(store, SqliteStore)
        thread_id, beside = await opened_thread(store), store._lane._beside
        for number in range(20):
            await post(store, thread_id, f"alone-{number}")
        assert beside._process is None, "who posts alone needs none"
        while not beside.is_up:
            await asyncio.gather(*(post(store, thread_id, f"together-{number}") for number in range(8)))
        process = beside._process
        assert process is not None
        before = store.figures()["commits"]
        await asyncio.gather(*(post(store, thread_id, f"beside-{number}") for number in range(8)))
        assert store.figures()["commits"] - before < 8
        messages = (await store.read(thread_id, reader="", since_seq=0, limit=999)).messages
        assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    assert process.poll() == 0


async def test_who_posts_alone_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_lane, "_QUICK", DEADLINE)
    monkeypatch.setattr(recent, "_RATES_COUNT_FOR", DEADLINE)
    looked_up: list[Any] = []
    loaded = sqlite_locked._loaded

    def counted(connection: sqlite3.Connection, asks: Any) -> Any:
        looked_up.append(asks)
        return loaded(connection, asks)

    async with store_at(str(tmp_path / "kloros.db")) as store:
        thread_id = await opened_thread(store)
        await post(store, thread_id, "first")
        monkeypatch.setattr(sqlite_locked, "_loaded", counted)
        assert [(await post(store, thread_id, "a")).seq for _ in range(5)] == [2, 3, 4, 5, 6]
    assert not looked_up


async def test_it_comes_up_for_one_who_posts_alone_where_the_disk_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_lane, "_QUICK", 0.0)
    async with store_at(str(tmp_path / "kloros.db")) as store:
        assert isinstance(store, SqliteStore)
        thread_id, number = await opened_thread(store), 0
        while not store._lane._beside.is_up or number < 20:
            number += 1
            assert (await post(store, thread_id, f"alone-{number}")).seq == number


async def test_two_batches_are_on_their_way_and_nobody_is_told_before_they_are_safe(scene: Scene) -> None:
    with scene.stopped():
        asked = scene.post("a", "b")
        await scene.sent(1)
        asked += scene.post("c", "d")
        await scene.sent(2)
        asked += scene.post("e")
        await asyncio.sleep(0.05)
        assert len(scene.beside._asked) == 2, "a third waits"
        assert not any(one.done() for one in asked)
        assert await scene.bodies() == ["first"]
    assert [answer.seq for answer in await answers(asked)] == [2, 3, 4, 5, 6]
    assert await scene.bodies() == ["first", "a", "b", "c", "d", "e"]


async def test_killed_before_it_wrote_the_bridge_writes_by_itself(scene: Scene) -> None:
    scene.process.send_signal(signal.SIGSTOP)
    asked = scene.post("a", "b")
    await scene.sent(1)
    asked += scene.post("c")
    await scene.sent(2)
    first = scene.process
    first.kill()
    assert sorted(answer.seq for answer in await answers(asked)) == [2, 3, 4]
    assert sorted((await scene.bodies())[1:]) == ["a", "b", "c"]
    await answers(scene.post("d", "e"))  # it is started again
    await until(lambda: scene.beside.is_up)
    assert scene.process is not first
    assert len(await scene.bodies()) == 6


@pytest.mark.parametrize("ahead", [False, True], ids=["alone", "with the next on its way"])
async def test_killed_after_it_wrote_nothing_is_written_twice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    """Its answers never come; who looks under lock finds that what it was asked for stands."""
    heard: list[bytes] = []
    monkeypatch.setattr(Beside, "data_received", lambda _, data: heard.append(data))
    with scene.stopped():
        asked = scene.post("a", "b")
        await scene.sent(1)
        if ahead:
            asked += scene.post("c")
            await scene.sent(2)
    await until(lambda: len(b"".join(heard)) == 1 + ahead)
    monkeypatch.undo()
    scene.process.kill()
    posted = await answers(asked)
    assert [answer.seq for answer in posted] == [2, 3, 4][: 2 + ahead]
    async with store_at(scene.place) as other:
        found = (await other.read(scene.thread_id, reader="", since_seq=1, limit=9)).messages
    assert [message.message_id for message in found] == [answer.message_id for answer in posted]
    await scene.bodies()


async def test_one_that_is_stuck_is_killed_and_what_it_was_asked_for_is_done(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_beside, "_UNHEARD", 0.2)
    scene.process.send_signal(signal.SIGSTOP)
    asked = scene.post("a", "b")
    assert sorted(answer.seq for answer in await answers(asked)) == [2, 3]
    assert sorted((await scene.bodies())[1:]) == ["a", "b"]


async def test_what_another_process_has_changed_meanwhile_is_planned_anew_and_so_is_what_rests_on_it(scene: Scene) -> None:
    async with store_at(scene.place) as other:
        with scene.stopped():
            asked = scene.post("a", "b")
            await scene.sent(1)
            asked += scene.post("c")
            await scene.sent(2)
            await post(other, scene.thread_id, "other")
    assert sorted(answer.seq for answer in await answers(asked)) == [3, 4, 5]
    assert (await scene.bodies())[:2] == ["first", "other"]


async def test_what_follows_on_another_thread_is_done_though_the_one_before_failed(scene: Scene) -> None:
    second = await opened_thread(scene.store)
    await post(scene.store, second, "first")
    scene.store._lane._crowd = 100.0
    async with store_at(scene.place) as other:
        with scene.stopped():
            asked = scene.post("a")
            await scene.sent(1)
            scene.thread_id, behind = second, scene.thread_id
            asked += scene.post("b")
            await scene.sent(2)
            await post(other, behind, "other")
    assert [answer.seq for answer in await answers(asked)] == [3, 2]
    assert await scene.bodies() == ["first", "b"]
    scene.thread_id = behind
    assert await scene.bodies() == ["first", "other", "a"]


@pytest.mark.parametrize("beside", [True, False], ids=["by the process", "by the bridge"])
async def test_a_thread_that_another_process_has_closed_is_not_posted_to(scene: Scene, beside: bool) -> None:
    """No message is in the way: it is the version of the thread that tells."""

    def closing(facts: Facts) -> Change[None]:
        audit = (note(facts.now, "update_thread_status", scene.thread_id),)
        return Change(status=(ThreadStatus.CLOSED, "done"), audit=audit)

    def where_open(facts: Facts) -> Change[MessagePosted]:
        if facts.thread is None or facts.thread.status == ThreadStatus.CLOSED:
            raise Refused(Code.CONFLICT, "the thread is closed", rule="test")
        return posting("too late")(facts)

    if not beside:
        scene.store._lane._crowd = 1.0
    async with store_at(scene.place) as other:
        with scene.stopped() if beside else nullcontext():
            asked = [scene.ask(where_open)] if beside else []
            if beside:
                await scene.sent(1)
            await other.change(Ask(workspace_id=WORKSPACE, thread_id=scene.thread_id, agent_id=AGENT), closing)
            asked = asked or [scene.ask(where_open)]
    (refused,) = await answers(asked)
    assert isinstance(refused, Refused)
    assert await scene.bodies() == ["first"]


@pytest.mark.parametrize("beside", [True, False], ids=["by the process", "by the bridge"])
async def test_a_cursor_that_another_process_has_moved_is_not_written_over(scene: Scene, beside: bool) -> None:
    """It leaves no audit either: nothing but the version of the thread tells."""

    def reading(_: Facts) -> Change[None]:
        return Change(read=(AGENT, 1))

    if not beside:
        scene.store._lane._crowd = 1.0
    async with store_at(scene.place) as other:
        with scene.stopped() if beside else nullcontext():
            asked = scene.post("a") if beside else []
            if beside:
                await scene.sent(1)
            await other.change(Ask(workspace_id=WORKSPACE, thread_id=scene.thread_id, agent_id=AGENT), reading)
            asked = asked or scene.post("a")
        assert [answer.seq for answer in await answers(asked)] == [2]
        found = await other.read(scene.thread_id, reader=AGENT, since_seq=0, limit=9)
    assert found.thread is not None
    assert found.thread.last_seq == 2
    assert found.member is not None
    assert found.member.last_read_seq == 1
    assert await scene.bodies() == ["first", "a"]


async def test_a_key_that_was_used_is_answered_with_its_first_message(scene: Scene) -> None:
    (first,) = await answers(scene.post("a", keyed=True))
    with scene.stopped():
        asked = scene.post("a", "b", keyed=True)
        await scene.sent(1)
        asked += scene.post("c")
        await scene.sent(2)
    again, *others = await answers(asked)
    assert again.message_id == first.message_id
    assert sorted(answer.seq for answer in others) == [3, 4]
    assert await scene.bodies() == ["first", "a", "b", "c"]


async def test_while_the_file_is_locked_too_long_it_says_so_and_goes_on_after(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene.locked():
        refused = await answers(scene.post("a", "b"))
    assert {type(one) for one in refused} == {Refused}
    assert {one.code for one in refused} == {Code.UNAVAILABLE}
    assert scene.process.poll() is None
    assert [answer.seq for answer in await answers(scene.post("c", "d"))] == [2, 3]
    assert await scene.bodies() == ["first", "c", "d"]


async def test_what_comes_alone_while_the_file_is_locked_for_a_moment_waits_on_the_same_connection(scene: Scene) -> None:
    scene.store._lane._crowd = 1.0
    await post(scene.store, scene.thread_id, "second")
    before = scene.store._lane._locked._connection
    with scene.locked():
        asked = scene.post("third")
        await asyncio.sleep(0.1)
        assert not asked[0].done()
    assert [answer.seq for answer in await answers(asked)] == [3]
    assert scene.store._lane._locked._connection is before is not None


async def test_where_it_can_write_no_more_the_bridge_does(scene: Scene) -> None:
    """As on a disk that is full for it alone: it ends, and what is wrong, if anything, the bridge finds out for itself."""
    resource.prlimit(scene.process.pid, resource.RLIMIT_FSIZE, (1, 1))
    process = scene.process
    assert sorted(answer.seq for answer in await answers(scene.post("a", "b"))) == [2, 3]
    await until(lambda: process.poll() is not None)
    assert sorted((await scene.bodies())[1:]) == ["a", "b"]


def test_it_outlives_signals_and_ends_with_its_bridge(tmp_path: Path) -> None:
    """A service manager sends them to all processes of a unit; what the bridge is about is not to be lost for that."""
    place = str(tmp_path / "kloros.db")
    SqliteDatabase(place).close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-P", "-m", sqlite_process.__name__, place]
        process = subprocess.Popen(command, stdin=theirs.fileno())
        theirs.close()
        assert ours.recv(1) == sqlite_process.UP
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process.send_signal(number)
        ours.sendall(sqlite_process.framed({"revocations": []}))
        assert ours.recv(1) == sqlite_process.WRITTEN_AFTER_OTHERS
        ours.sendall(b"half a")
    assert process.wait(DEADLINE) == 0


BRIDGE = """
import asyncio, sys
from orchestration.bridge.store.sqlite_beside import Beside

async def main():
    beside = Beside(sys.argv[1])
    beside.start()
    while not beside.is_up:
        await asyncio.sleep(0.01)
    print(beside._process.pid, flush=True)
    await asyncio.sleep(600)  # until it is killed

asyncio.run(main())
"""


def test_none_is_left_of_a_bridge_that_was_killed(tmp_path: Path) -> None:
    place = str(tmp_path / "kloros.db")
    SqliteDatabase(place).close()
    with subprocess.Popen([sys.executable, "-P", "-c", BRIDGE, place], stdout=subprocess.PIPE) as bridge:
        assert bridge.stdout is not None
        process = Path("/proc", bridge.stdout.readline().decode().strip())
        assert process.exists()
        bridge.kill()
        waiting.until(lambda: not process.exists() or "Z" in (process / "stat").read_text().rpartition(")")[2], "it ends")


async def test_others_get_the_lock_while_many_write(scene: Scene) -> None:
    """SQLite's waiting is polling: it comes to nothing where the lock is taken again at once."""
    stopping = False

    async def write(name: int) -> None:
        number = 0
        while not stopping:
            await post(scene.store, scene.thread_id, f"{name}-{number}")
            number += 1

    writers = [asyncio.ensure_future(write(name)) for name in range(8)]
    waited = []
    for _ in range(10):
        command = (
            f"import sqlite3; c = sqlite3.connect({scene.place!r}, 10, isolation_level=None); c.execute('BEGIN IMMEDIATE')"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", command)
        began = asyncio.get_running_loop().time()
        assert await process.wait() == 0
        waited.append(asyncio.get_running_loop().time() - began)
    stopping = True
    await asyncio.gather(*writers)
    assert max(waited) < 5
    await scene.bodies()


async def test_it_is_small(tmp_path: Path) -> None:
    """What it imports is paid for in memory, and in the time until it is up."""
    program = "import sys; import orchestration.bridge.store.sqlite_process; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.decode().split()}
    assert not loaded & {"pydantic", "pydantic_core", "asyncio", "psycopg", "uvicorn", "starlette"}


def test_the_file_is_left_free_for_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 100.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.sleep", sleep)
    turns = Turns()
    for _ in range(1000):  # without a moment between
        turns.begin()
        now += 0.001
        turns.end()
    assert 0.05 < sum(slept) < 0.15
    slept.clear()
    for _ in range(1000):  # with as much as is owed, and a little more
        turns.begin()
        now += 0.001
        turns.end()
        now += 0.00011
    assert len(slept) <= 1
