"""What waits while PostgreSQL writes is planned on what that is to leave. Here writes wait, fail and get lost."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestration.bridge.caller import Role
from orchestration.bridge.port import Store
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Ask, Change, Facts, Member, Plan
from orchestration.bridge.store import lane, recent
from orchestration.bridge.store.lookups import Waiting
from orchestration.bridge.store.postgres import PostgresStore
from orchestration.bridge.store.postgres_line import Line
from orchestration.bridge.wire import MessagePosted, ThreadStatus
from tests.contract.bridge_wire import Lost, Wire
from tests.contract.bridging import AGENT, DEADLINE, WORKSPACE, answers, note, opened_thread, post, posting, until
from tests.contract.conftest import store_at
from tests.contract.postgres import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres")]


class Scene:
    """A thread with one message, whose store writes over a wire; and a store that goes straight to the same database."""

    def __init__(self, wire: Wire, place: str, store: Store, other: Store, thread_id: str) -> None:
        self.wire, self.place, self.store, self.other, self.thread_id = wire, place, store, other, thread_id
        self.seen: list[Facts] = []
        """What plans were made on, in their order."""

    async def write_is_held(self, plan: Plan[Any], *, key: str | None = None) -> asyncio.Task[Any]:
        """Have a change written; it gets as far as the wire."""
        self.wire.hold()
        before = self.wire.writes
        asked = self.ask(plan, key=key)
        await until(lambda: self.wire.writes > before)
        return asked

    async def planned(self, *plans: Plan[Any], key: str | None = None) -> list[asyncio.Task[Any]]:
        """Ask for changes that wait together, until each is planned. The key is the first one's."""
        before = len(self.seen)
        asked = [self.ask(plan, key=None if number else key) for number, plan in enumerate(plans)]
        await until(lambda: len(self.seen) == before + len(plans))
        return asked

    def ask(self, plan: Plan[Any], *, key: str | None = None) -> asyncio.Task[Any]:
        ask = Ask(workspace_id=WORKSPACE, thread_id=self.thread_id, agent_id=AGENT, idempotency_key=key)

        def watched(facts: Facts) -> Change[Any]:
            self.seen.append(facts)
            return plan(facts)

        return asyncio.ensure_future(self.store.change(ask, watched))

    async def bodies(self) -> list[str]:
        """Read the thread back, and see that nothing is wrong with it."""
        messages = (await self.other.read(self.thread_id, reader="", since_seq=0, limit=99)).messages
        assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
        assert not (await self.other.verify()).faults
        return [message.body for message in messages]


@pytest.fixture
async def scene(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(recent, "_RATES_COUNT_FOR", DEADLINE)  # on a machine that is as slow as you like
    monkeypatch.setattr(lane, "_ANSWERED_IN", DEADLINE)  # longer than any write that is held
    wire, place = Wire(tmp_path, cluster), cluster.new_database()
    async with wire.laid(place) as address, store_at(address) as store, store_at(place) as other:
        thread_id = await opened_thread(store)
        await post(store, thread_id, "first")
        yield Scene(wire, place, store, other, thread_id)


def closing(facts: Facts) -> Change[str]:
    """Close the thread, unless more than one message was posted."""
    if facts.thread is None or facts.thread.last_seq > 1:
        raise Refused(Code.CONFLICT, "somebody has posted", rule="test")
    audit = (note(facts.now, "update_thread_status", facts.thread.thread_id),)
    return Change(answer="closed", status=(ThreadStatus.CLOSED, "done"), audit=audit)


def posting_where_open(body: str) -> Plan[MessagePosted]:
    def plan(facts: Facts) -> Change[MessagePosted]:
        if facts.thread is None or facts.thread.status == ThreadStatus.CLOSED:
            raise Refused(Code.CONFLICT, "the thread is closed", rule="test")
        return posting(body)(facts)

    return plan


def reading(seq: int) -> Plan[int]:
    """Move the cursor, unless it is there."""

    def plan(facts: Facts) -> Change[int]:
        if facts.members[AGENT].last_read_seq >= seq:
            return Change(answer=seq)
        return Change(answer=seq, read=(AGENT, seq))

    return plan


def joining(agent: str, body: str) -> Plan[MessagePosted]:
    def plan(facts: Facts) -> Change[MessagePosted]:
        joined = (Member(agent_id=agent, role=Role.PARTICIPANT, joined_at=facts.now),)
        return posting(body)(facts)._replace(joined=joined)

    return plan


async def test_what_waits_is_planned_on_what_is_being_written_and_follows_it_at_once(scene: Scene) -> None:
    under_way = await scene.write_is_held(posting("a"))
    following = await scene.planned(posting("b"), posting("c"))
    assert [facts.next_seq for facts in scene.seen] == [2, 3, 4]
    assert scene.store.figures()["waiting_changes"] == 2
    assert not any(asked.done() for asked in (under_way, *following))
    scene.wire.let_pass()
    assert [answer.seq for answer in await answers([under_way, *following])] == [2, 3, 4]
    assert len(scene.seen) == 3, "nothing was planned twice"
    assert await scene.bodies() == ["first", "a", "b", "c"]


async def test_where_writes_take_long_what_waits_is_written_together(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "_ANSWERED_IN", 0.0)
    commits = scene.store.figures()["commits"]
    under_way = await scene.write_is_held(posting("0"))
    following = [scene.ask(posting(f"{number}")) for number in range(1, 10)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(scene.seen) == 1, "nothing is planned before the others have come in"
    scene.wire.let_pass()
    assert [answer.seq for answer in await answers([under_way, *following])] == list(range(2, 12))
    assert scene.store.figures()["commits"] == commits + 2


async def test_an_answer_that_lay_there_makes_no_write_long(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "_ANSWERED_IN", 0.01)
    for seconds in (0.001, 0.5, 0.5):
        monkeypatch.setattr(Line, "waited", seconds)
        await scene.ask(posting(f"read after {seconds} s"))
    under_way = await scene.write_is_held(posting("a"))
    (following,) = await scene.planned(posting("b"))
    scene.wire.let_pass()
    assert [answer.seq for answer in await answers([under_way, following])] == [5, 6]


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[lane.Write[Any]]:
    """Collect the turns of the event loop that were taken only to stay awake."""
    taken: list[lane.Write[Any]] = []
    stay_awake = lane.Lane._stay_awake

    def counted(self: lane.Lane[Any], write: lane.Write[Any]) -> None:
        taken.append(write)
        stay_awake(self, write)

    monkeypatch.setattr(lane.Lane, "_stay_awake", counted)
    return taken


async def test_the_loop_stays_awake_until_a_change_that_came_alone_is_written(
    scene: Scene, turns: list[lane.Write[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "AWAKE", DEADLINE)
    under_way = await scene.write_is_held(posting("a"))
    before = len(turns)
    await until(lambda: len(turns) > before + 100)
    scene.wire.let_pass()
    await answers([under_way])
    before = len(turns)
    await asyncio.sleep(0.05)
    assert len(turns) <= before + 1, "the one that found it written"
    assert await scene.bodies() == ["first", "a"]


async def test_the_loop_goes_to_sleep_when_a_write_takes_longer_than_usual(
    scene: Scene, turns: list[lane.Write[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as usually:
        usually.setattr(Line, "waited", 0.001)
        await answers([scene.ask(posting("a"))])
    monkeypatch.setattr(lane, "AWAKE", 0.05)
    under_way = await scene.write_is_held(posting("b"))
    assert turns
    await asyncio.sleep(0.1)
    before = len(turns)
    await asyncio.sleep(0.1)
    assert len(turns) == before
    scene.wire.let_pass()
    await answers([under_way])


@pytest.mark.parametrize("seconds", [pytest.param(0.0, id="one processor"), pytest.param(1e-6, id="slow writes")])
async def test_where_it_does_not_pay_the_loop_sleeps(
    scene: Scene, turns: list[lane.Write[Any]], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(lane, "AWAKE", seconds)
    await answers([scene.ask(posting("a"))])
    assert not turns


async def test_while_many_post_the_loop_has_enough_to_do(
    scene: Scene, turns: list[lane.Write[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await answers([scene.ask(posting(f"together {number}")) for number in range(3)])
    turns.clear()
    monkeypatch.setattr(lane, "AWAKE", DEADLINE)
    await answers([scene.ask(posting(f"{number}")) for number in range(3)])
    assert not turns
    assert len(await scene.bodies()) == 7


async def test_a_count_of_posts_that_is_gone_is_begun_anew(scene: Scene) -> None:
    async with await psycopg.AsyncConnection.connect(scene.place, autocommit=True) as database:
        await database.execute("DELETE FROM bridge_rates")
        await answers([scene.ask(posting("a"))])
        counts = await (await database.execute("SELECT agent_id, rate_posts FROM bridge_rates")).fetchall()
    assert counts == [(AGENT, 1)]
    assert [facts.rate.posts for facts in scene.seen] == [1, 0], "planned once more, under lock"
    assert await scene.bodies() == ["first", "a"]


async def test_a_half_that_takes_a_lock_is_not_halved_again(scene: Scene) -> None:
    await answers([scene.ask(posting(f"together {number}")) for number in range(3)])
    commits = scene.store.figures()["commits"]
    asked = [scene.ask(posting(f"{number}")) for number in range(15)]
    ask = Ask(workspace_id=WORKSPACE, thread_id=scene.thread_id, agent_id=AGENT, finding_id="to be looked up")
    asked.append(asyncio.ensure_future(scene.store.change(ask, posting("last"))))
    assert [answer.seq for answer in await answers(asked)] == list(range(5, 21))
    assert scene.store.figures()["commits"] == commits + 2


async def test_when_another_process_was_faster_all_is_planned_again_in_its_order(scene: Scene) -> None:
    under_way = await scene.write_is_held(posting("a"))
    following = await scene.planned(posting("b"), posting("c"))
    last = scene.ask(posting("d"))
    await post(scene.other, scene.thread_id, "of another")
    scene.wire.let_pass()
    assert [answer.seq for answer in await answers([under_way, *following, last])] == [3, 4, 5, 6]
    assert await scene.bodies() == ["first", "of another", "a", "b", "c", "d"]


async def test_nobody_is_refused_for_what_did_not_come_about(scene: Scene) -> None:
    under_way = await scene.write_is_held(closing)
    (following,) = await scene.planned(posting_where_open("after all"))
    assert [facts.thread and facts.thread.status for facts in scene.seen] == [ThreadStatus.ACTIVE, ThreadStatus.CLOSED]
    await post(scene.other, scene.thread_id, "of another")
    assert not following.done()
    scene.wire.let_pass()
    refused, answer = await answers([under_way, following])
    assert (refused.code, answer.seq) == (Code.CONFLICT, 3)
    assert await scene.bodies() == ["first", "of another", "after all"]


async def test_what_a_write_that_failed_was_to_leave_is_forgotten(scene: Scene) -> None:
    async with await psycopg.AsyncConnection.connect(scene.place, autocommit=True) as database:
        await database.execute("ALTER TABLE bridge_messages ADD CHECK (body <> 'unwanted')")
    under_way = await scene.write_is_held(joining("guest", "unwanted"))
    scene.wire.let_pass()
    (error,) = await answers([under_way])
    assert isinstance(error, psycopg.errors.CheckViolation)
    await answers([scene.ask(posting("a"))])
    assert ["guest" in facts.members for facts in scene.seen] == [False, False]
    assert await scene.bodies() == ["first", "a"]


async def test_what_rests_on_a_write_that_failed_is_planned_without_it(scene: Scene) -> None:
    async with await psycopg.AsyncConnection.connect(scene.place, autocommit=True) as database:
        await database.execute("ALTER TABLE bridge_messages ADD CHECK (body <> 'unwanted')")
    under_way = await scene.write_is_held(joining("guest", "unwanted"))
    (following,) = await scene.planned(posting("a"))
    scene.wire.let_pass()
    error, answer = await answers([under_way, following])
    assert isinstance(error, psycopg.errors.CheckViolation)
    assert answer.seq == 2
    assert ["guest" in facts.members for facts in scene.seen] == [False, True, False]
    assert await scene.bodies() == ["first", "a"]


@pytest.mark.parametrize("lost", Lost)
async def test_a_connection_that_dies_takes_neither_what_is_written_nor_what_follows(scene: Scene, lost: Lost) -> None:
    scene.wire.lose_next = lost
    under_way = await scene.write_is_held(posting("a"))
    following = await scene.planned(reading(1), posting("b"))
    scene.wire.let_pass()
    answer, cursor, last = await answers([under_way, *following])
    assert (answer.seq, cursor, last.seq) == (2, 1, 3)
    assert await scene.bodies() == ["first", "a", "b"]
    (member,) = [member for member in await scene.other.participants(scene.thread_id) if member.agent_id == AGENT]
    assert member.last_read_seq == 1, "the cursor is where we were told, though the write it was planned on was looked up"


async def test_a_key_that_comes_again_while_its_post_is_written_is_one_message(scene: Scene) -> None:
    under_way = await scene.write_is_held(posting("a", key="k"), key="k")
    again, neighbour = await scene.planned(posting("a", key="k"), posting("b"), key="k")
    scene.wire.let_pass()
    first, repeat, other = await answers([under_way, again, neighbour])
    assert (first.seq, repeat, other.seq) == (2, first, 3)
    assert await scene.bodies() == ["first", "a", "b"]


async def test_what_no_database_can_keep_fails_alone_also_where_it_follows(scene: Scene) -> None:
    under_way = await scene.write_is_held(posting("a"))
    following = await scene.planned(posting("b"), posting("a lone surrogate \ud800"), posting("c"))
    scene.wire.let_pass()
    results = await answers([under_way, *following])
    assert isinstance(results[2], UnicodeError | ValueError)
    assert [result.seq for result in results if result is not results[2]] == [2, 3, 4]
    assert await scene.bodies() == ["first", "a", "b", "c"]


async def test_rates_count_what_is_being_written_and_what_others_wrote_meanwhile(scene: Scene) -> None:
    elsewhere = await opened_thread(scene.other)
    first = await scene.write_is_held(posting("a"))
    for _ in range(5):
        await post(scene.other, elsewhere, "of the same agent")
    (second,) = await scene.planned(posting("b"))
    scene.wire.let_one_pass()
    await until(first.done)
    (third,) = await scene.planned(posting("c"))
    scene.wire.let_one_pass()
    scene.wire.let_pass()
    await answers([first, second, third])
    counted = [facts.rate.posts + facts.rate.before for facts in scene.seen]
    assert counted == [1, 2, 8]


async def test_a_waiter_that_goes_leaves_the_others_in_their_places(scene: Scene) -> None:
    under_way = await scene.write_is_held(posting("a"))
    gone, stays = await scene.planned(posting("b"), posting("c"))
    gone.cancel()
    scene.wire.let_pass()
    assert [answer.seq for answer in await answers([under_way, stays])] == [2, 4]
    assert await scene.bodies() == ["first", "a", "b", "c"]


async def test_closing_waits_for_what_is_planned_already(scene: Scene) -> None:
    under_way = await scene.write_is_held(posting("a"))
    following = await scene.planned(posting("b"))
    ending = asyncio.ensure_future(scene.store.close())
    await asyncio.sleep(0)
    assert isinstance((await answers([scene.ask(posting("late"))]))[0], Refused)
    assert not ending.done()
    scene.wire.let_pass()
    assert [answer.seq for answer in await answers([under_way, *following])] == [2, 3]
    await answers([ending])
    assert await scene.bodies() == ["first", "a", "b"]


async def test_what_comes_between_an_answer_and_the_next_turn_of_the_loop_is_not_left(scene: Scene) -> None:
    """A batch is answered before the loop comes to plan what waited beside the batch before it; then one more comes in."""
    store = scene.other
    await post(store, scene.thread_id, "over no wire, which needs the loop")
    assert isinstance(store, PostgresStore)
    (lane,) = [lane for lane in store._lanes if lane.commits]

    def taken(body: str) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ask = Ask(workspace_id=WORKSPACE, thread_id=scene.thread_id, agent_id=AGENT)
        lane.take(Waiting(ask, posting(body), future))
        return future

    def wait_in_one_turn(asked: asyncio.Future[Any]) -> None:
        assert lane.line._watched is not None
        while not asked.done():
            select.select([lane.line._watched], [], [], DEADLINE)
            lane.line._readable()

    first, second = taken("a"), taken("b")
    await asyncio.sleep(0)
    wait_in_one_turn(first)
    wait_in_one_turn(second)
    outcome = await asyncio.wait_for(taken("c"), DEADLINE)
    assert outcome.answer.seq == 5
