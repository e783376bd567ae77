"""Wake stores while supervisors are killed, databases restarted and connections cut; and looks that must miss nothing.

Whatever happens: each trigger ends once, with one line of audit and one message; no attempt has two beginnings, and what one
supervisor began the next one finds; a look that builds on the last one shows what a first look shows.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.bridge.caller import Role
from orchestration.bridge.port import Store
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Ask, Change, Facts, Member
from orchestration.bridge.store.postgres_wakes import PostgresWakes
from orchestration.bridge.store.sqlite_wakes import SqliteWakes
from orchestration.bridge.store.transfer import Side, SqliteSide, sound
from orchestration.bridge.store.transfer_postgres import PostgresSide
from orchestration.bridge.wake.state import Status
from orchestration.bridge.wire import ThreadStatus
from tests.contract.bridging import AGENT, WORKSPACE, note, opened_thread, post
from tests.contract.conftest import opened_at
from tests.contract.postgres import Cluster
from tests.contract.test_bridge_store_pooled import pooled
from tests.contract.waking import LEASE, NOON, REVIEWER, acknowledged, asked_for, attempt, told, wakes_at

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
DEADLINE = 60.0
SUPERVISORS, THREADS, TRIGGERS = 3, 4, 24


@asynccontextmanager
async def opened(place: str) -> AsyncIterator[tuple[Store, SqliteWakes | PostgresWakes]]:
    store = await opened_at(place)
    wakes = await wakes_at(place)
    try:
        yield store, wakes
    finally:
        await wakes.close()
        await store.close()


class Supervisors:
    """Some processes that end triggers; each that is killed is followed by another one."""

    def __init__(self, place: str) -> None:
        self.told: list[str] = []
        self._place, self._stopping = place, False
        self._running: dict[int, Process] = {}
        self._tasks = [asyncio.ensure_future(self._keep(number)) for number in range(SUPERVISORS)]

    async def some_more(self, enough: int, wakes: SqliteWakes | PostgresWakes) -> None:
        """Wait until some more are ended, or all are."""
        before = len(self.told)
        async with asyncio.timeout(DEADLINE):
            while len(self.told) < before + enough:
                await asyncio.sleep(0.005)
                with suppress(Refused):
                    if len(await all_ended(wakes)) == TRIGGERS:
                        return
                for task in self._tasks:
                    if task.done():
                        task.result()

    def kill(self) -> None:
        with suppress(ProcessLookupError, IndexError):
            random.choice(list(self._running.values())).kill()

    async def end(self) -> None:
        self._stopping = True
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.kill()
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*self._tasks)

    async def _keep(self, number: int) -> None:
        incarnation = 0
        while not self._stopping:
            incarnation += 1
            command = [sys.executable, "-m", "tests.contract.wake_supervisor", self._place, f"{number}.{incarnation}"]
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=DEVNULL)
            self._running[number] = process
            assert process.stdout is not None
            while line := await process.stdout.readline():
                if line.endswith(b"\n"):
                    self.told.append(line.decode().strip())
            await process.wait()


def side_of(place: str) -> Side:
    return PostgresSide(place) if "://" in place else SqliteSide(place)


async def each_ends_once(place: str, fault: Callable[[Supervisors], Awaitable[None]]) -> None:
    async with opened(place) as (store, wakes):
        threads = [await opened_thread(store) for _ in range(THREADS)]
        ids = [
            await asked_for(store, threads[number % THREADS], f"agent-{number}", prompt=f"{number}")
            for number in range(TRIGGERS)
        ]
        supervisors = Supervisors(place)
        for _ in range(3):
            await supervisors.some_more(2, wakes)
            await fault(supervisors)
        async with asyncio.timeout(DEADLINE):
            while len(await all_ended(wakes)) < TRIGGERS:
                await asyncio.sleep(0.02)
        await supervisors.end()
        ended = {wake.trigger_id: wake for wake in await wakes.wakes(limit=999)}
        assert sorted(ended) == sorted(ids)
        assert Counter(supervisors.told).most_common(1)[0][1] == 1
        for wake in ended.values():
            assert [one.number for one in wake.attempts] in ([1, 2], [1])
            assert all(one.ended_at and one.ended_at >= one.began_at for one in wake.attempts)
        bounced, audited = Counter[str](), Counter[str]()
        for thread_id in threads:
            for message in (await store.read(thread_id, reader="", since_seq=0, limit=999)).messages:
                bounced[message.metadata["trigger_id"]] += 1
            for entry in await store.audit(workspace_id=WORKSPACE, thread_id=thread_id, limit=999):
                if entry.operation == "settle_trigger" and entry.after is not None:
                    audited[entry.after["trigger_id"]] += 1
        assert bounced == audited == Counter(ids)
    with closing(side_of(place)) as side:
        assert sound(side).faults == ()


async def all_ended(wakes: SqliteWakes | PostgresWakes) -> list[str]:
    with suppress(Refused):
        return [wake.trigger_id for wake in await wakes.wakes(status=Status.DEAD_LETTERED, limit=999)]
    return []


async def test_supervisors_are_killed_and_every_trigger_ends_once(place: str) -> None:
    async def kill(supervisors: Supervisors) -> None:
        supervisors.kill()

    await each_ends_once(place, kill)


@pytest.mark.xdist_group("postgres")
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_the_server_is_restarted_and_every_trigger_ends_once(cluster: Cluster, mode: str) -> None:
    async def restart(_: Supervisors) -> None:
        await asyncio.to_thread(cluster.stop, mode)
        await asyncio.to_thread(cluster.start)

    await each_ends_once(cluster.new_database(), restart)


@pytest.mark.xdist_group("postgres")
async def test_a_server_that_is_gone_is_told_and_found_again(cluster: Cluster) -> None:
    place = cluster.new_database()
    async with opened(place) as (store, wakes):
        trigger_id = await asked_for(store, await opened_thread(store))
        claim = await wakes.claim(trigger_id, holder="one", lease=LEASE)
        assert claim is not None
        await asyncio.to_thread(cluster.stop)
        try:
            for ask in (wakes.cases, lambda: wakes.begin(claim, attempt(claim))):
                with pytest.raises(Refused) as refused:
                    await ask()
                assert refused.value.code is Code.UNAVAILABLE
            await wakes.wait_for_work(seconds=0.01)
            assert not await wakes.wait_for_work(seconds=0.01)
        finally:
            await asyncio.to_thread(cluster.start)
        assert await wakes.begin(claim, attempt(claim))
        (case,) = await wakes.cases()
        assert case.wake is not None
        assert case.wake.attempts


@pytest.mark.xdist_group("postgres")
async def test_a_trigger_that_ends_while_it_is_claimed_is_not_claimed(cluster: Cluster) -> None:
    place = cluster.new_database()
    async with opened(place) as (store, wakes):
        trigger_id = await asked_for(store, await opened_thread(store))
        claim = await wakes.claim(trigger_id, holder="one", lease=LEASE)
        assert claim is not None
        async with await psycopg.AsyncConnection.connect(place) as other:
            await other.execute(b"UPDATE bridge_wake_states SET ended_at = now(), holder = '', fence = fence + 1")
            await other.execute(b"UPDATE bridge_triggers SET status = 'cancelled'")
            claiming = asyncio.ensure_future(wakes.claim(trigger_id, holder="two", lease=LEASE))
            async with asyncio.timeout(DEADLINE), await psycopg.AsyncConnection.connect(place, autocommit=True) as third:
                waiting = b"SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%wake_states%'"
                while not await (await third.execute(waiting)).fetchall():
                    await asyncio.sleep(0.005)
            await other.commit()
        assert await claiming is None


@pytest.mark.xdist_group("postgres")
async def test_connections_that_were_cut_are_noticed_by_nobody(cluster: Cluster) -> None:
    place = cluster.new_database()
    async with opened(place) as (store, wakes):
        thread_id = await opened_thread(store)
        await told(store, thread_id)
        for _ in range(3):
            await asyncio.gather(*(wakes.cases() for _ in range(4)))
            with psycopg.connect(place, autocommit=True) as other:
                other.execute(
                    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    b" WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            assert len(await wakes.cases()) == 1
        async with asyncio.timeout(DEADLINE):
            while await wakes.wait_for_work(seconds=1.5):  # it listens again, and hears of nothing
                pass
            waiting = asyncio.ensure_future(wakes.wait_for_work(seconds=DEADLINE))
            await told(store, thread_id)
            assert await waiting


async def test_a_file_that_is_locked_for_long_is_told(tmp_path: Path) -> None:
    async with opened(str(tmp_path / "kloros.db")) as (store, wakes):
        trigger_id = await asked_for(store, await opened_thread(store))
        with closing(sqlite3.connect(tmp_path / "kloros.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(Refused) as refused:
                await wakes.claim(trigger_id, holder="one", lease=LEASE)
            assert refused.value.code is Code.UNAVAILABLE
            assert len(await wakes.cases()) == 1
            holder.execute("ROLLBACK")
        assert await wakes.claim(trigger_id, holder="one", lease=LEASE) is not None


@pytest.mark.xdist_group("postgres")
async def test_behind_a_pooler_the_audit_is_looked_at(cluster: Cluster) -> None:
    place = cluster.new_database()
    async with pooled(place, cluster) as address, opened(address) as (store, wakes):
        thread_id = await opened_thread(store)
        trigger_id = await asked_for(store, thread_id)
        claim = await wakes.claim(trigger_id, holder="one", lease=LEASE)
        assert claim is not None
        assert await wakes.begin(claim, attempt(claim))
        while await wakes.wait_for_work(seconds=1.2):
            pass
        waiting = asyncio.ensure_future(wakes.wait_for_work(seconds=DEADLINE))
        await told(store, thread_id)
        assert await waiting


# ---- looks


@pytest.mark.xdist_group("postgres")
async def test_what_has_an_older_number_and_is_committed_later_is_not_missed(cluster: Cluster) -> None:
    place = cluster.new_database()
    async with opened(place) as (store, wakes):
        slow, other = await opened_thread(store), await opened_thread(store)
        for _ in range(3):
            assert await wakes.cases() == ()
        async with await psycopg.AsyncConnection.connect(place) as writer:
            # A post as another process writes it, its commit held up.
            await writer.execute(
                b"UPDATE bridge_threads SET last_seq = 1, version = version + 1 WHERE thread_id = %s", (slow,)
            )
            await writer.execute(
                b"INSERT INTO bridge_messages SELECT %s, 1, 'msg_x', 'executioner', 'chat', 'x', '{}', null, null, now(),"
                b" '', 'active', null, '', ''",
                (slow,),
            )
            await writer.execute(
                b"INSERT INTO bridge_audit (chain, link, at, workspace_id, actor, role, request_id, operation, outcome,"
                b" rule, sha256) VALUES (%s, 99, now(), 'kloros', '', '', '', '', '', '', '')",
                (slow,),
            )
            for _ in range(4):
                await told(store, other)
                assert [case.thread_id for case in await wakes.cases()] == [other]
            await writer.commit()
        assert {case.thread_id for case in await wakes.cases()} == {slow, other}
        for _ in range(3):
            await wakes.cases()
        assert wakes._seen.entry >= 6  # and what is settled is not looked at for ever


def joining(agent_id: str) -> Callable[[Facts], Change[None]]:
    def plan(facts: Facts) -> Change[None]:
        member = Member(agent_id=agent_id, role=Role.PARTICIPANT, joined_at=facts.now)
        joined = () if agent_id in facts.members else (member,)
        return Change(joined=joined, audit=(note(facts.now, "add_participant"),))

    return plan


def leaving(agent_id: str) -> Callable[[Facts], Change[None]]:
    return lambda facts: Change(left=(agent_id,), audit=(note(facts.now, "remove_participant"),))


def becoming(status: ThreadStatus) -> Callable[[Facts], Change[None]]:
    return lambda facts: Change(status=(status, ""), audit=(note(facts.now, "set_thread_status"),))


def going(facts: Facts) -> Change[None]:
    return Change(removed=True, audit=(note(facts.now, "expire_thread"),))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["post", "post to one", "read", "join", "leave", "block", "activate", "trigger", "end", "remove", "look", "all"]
        ),
        st.integers(0, 2),
        st.sampled_from([AGENT, REVIEWER, "watcher"]),
    ),
    max_size=30,
)


async def carried_out(
    store: Store, wakes: SqliteWakes | PostgresWakes, threads: list[str], step: tuple[str, int, str]
) -> None:
    what, number, agent_id = step
    thread_id = threads[number]
    ask = Ask(workspace_id=WORKSPACE, thread_id=thread_id)
    found = await store.thread(thread_id)
    assert found is not None
    members = {one.agent_id for one in await store.participants(thread_id)}
    plans = {
        "join": joining(agent_id), "leave": leaving(agent_id), "block": becoming(ThreadStatus.BLOCKED),
        "activate": becoming(ThreadStatus.ACTIVE),
    }  # fmt: skip
    if what in plans:
        await store.change(ask, plans[what])
    elif what == "post":
        await told(store, thread_id, sender=agent_id)
    elif what == "post to one":
        await told(store, thread_id, sender=AGENT, to=agent_id)
    elif what == "read" and agent_id in members:
        await acknowledged(store, thread_id, agent_id, found.last_seq)
    elif what == "trigger":
        await asked_for(store, thread_id, agent_id)
    elif what == "end":
        for wake in await wakes.wakes(thread_id=thread_id, agent_id=agent_id, status=Status.QUEUED):
            await wakes.steer(wake.trigger_id, Status.CANCELLED, actor="operator:ada", reason="")
    elif what == "remove":
        await store.change(Ask(workspace_id=WORKSPACE, thread_id=thread_id, removes=True), going)
        threads[number] = await opened_thread(store)
    elif what == "look":
        await wakes.cases()


async def the_same_is_seen(place: str, steps: list[tuple[str, int, str]]) -> None:
    async with opened(place) as (store, wakes):
        threads = [await opened_thread(store) for _ in range(3)]
        for step in steps:
            await carried_out(store, wakes, threads, step)
            fresh = await wakes_at(place)
            assert await wakes.cases() == await fresh.cases()
            await fresh.close()


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_a_later_look_shows_what_a_first_one_shows_in_sqlite(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str]]
) -> None:
    asyncio.run(the_same_is_seen(str(tmp_path_factory.mktemp("look") / "kloros.db"), steps))


@pytest.mark.xdist_group("postgres")
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_a_later_look_shows_what_a_first_one_shows_in_postgres(cluster: Cluster, steps: list[tuple[str, int, str]]) -> None:
    asyncio.run(the_same_is_seen(cluster.new_database(), steps))


# ---- retention


async def test_what_is_told_of_waking_goes_with_its_thread(place: str) -> None:
    async with opened(place) as (store, wakes):
        gone, stays = await opened_thread(store), await opened_thread(store)
        for thread_id in (gone, stays):
            trigger_id = await asked_for(store, thread_id)
            claim = await wakes.claim(trigger_id, holder="one", lease=LEASE)
            assert claim is not None
            assert await wakes.begin(claim, attempt(claim, at=NOON))
        await store.change(Ask(workspace_id=WORKSPACE, thread_id=gone, removes=True), going)
        assert [wake.thread_id for wake in await wakes.wakes()] == [stays]
        assert [case.thread_id for case in await wakes.cases()] == [stays]
        assert (await post(store, stays, "x")).seq == 1
    with closing(side_of(place)) as side:
        assert sound(side).faults == ()
        for table in ("wake_states", "wake_attempts"):
            assert [
                row["thread_id"] for row in side.ask(f"transfer_{'postgres' if '://' in place else 'sqlite'}.{table}")
            ] == [stays]
