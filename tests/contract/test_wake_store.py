"""What every store of waking must do, whatever its engine."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest

from orchestration.bridge.caller import GUARD
from orchestration.bridge.port import Store
from orchestration.bridge.state import Ask, Change, Session
from orchestration.bridge.store.lookups import utc_now
from orchestration.bridge.store.postgres_wakes import PostgresWakes
from orchestration.bridge.store.sqlite_wakes import SqliteWakes
from orchestration.bridge.wake.port import WakeStore
from orchestration.bridge.wake.state import Case, Claim, Code, Outcome, Status, Wake, Way
from orchestration.bridge.wire import ManagementMode, MessageKind, SessionStatus, ThreadStatus
from orchestration.store.queries import sql
from orchestration.store.sqlite import SqliteDatabase
from tests.contract.bridging import AGENT, WORKSPACE, new_id, note, opened_thread, post
from tests.contract.waking import (
    LEASE,
    NOON,
    REVIEWER,
    acknowledged,
    asked_for,
    attempt,
    made_of_unread,
    told,
    wakes_at,
)

pytestmark = pytest.mark.anyio
Wakes: TypeAlias = SqliteWakes | PostgresWakes
OpenWakes: TypeAlias = Callable[..., Awaitable[Wakes]]
AT_ONCE = timedelta(0)
"""A lease that has ended when it is given."""
DEADLINE = 20


@pytest.fixture
async def open_wakes(place: str) -> AsyncIterator[OpenWakes]:
    """Open the wake store, as another supervisor would, as often as asked."""
    opened: list[Wakes] = []

    async def open_one(*, clock: Callable[[], datetime] = lambda: NOON) -> Wakes:
        opened.append(await wakes_at(place, clock=clock))
        return opened[-1]

    yield open_one
    for one in opened:
        await one.close()


@pytest.fixture
async def wakes(open_wakes: OpenWakes) -> Wakes:
    return await open_wakes()


def follows_the_port(wakes: Wakes) -> WakeStore:
    return wakes


async def claimed(wakes: Wakes, trigger_id: str, holder: str = "one", lease: timedelta = LEASE) -> Claim:
    claim = await wakes.claim(trigger_id, holder=holder, lease=lease)
    assert claim is not None
    return claim


async def taken_up(wakes: Wakes, trigger_id: str, holder: str) -> Claim:
    """Claim what somebody had whose lease has ended."""
    before = await the_wake(wakes, trigger_id)
    assert before.status is Status.CLAIMED
    claim = await claimed(wakes, trigger_id, holder)
    assert claim.fence > before.fence
    return claim


async def the_case(wakes: Wakes, thread_id: str, agent_id: str = REVIEWER) -> Case:
    case = await wakes.case(thread_id, agent_id)
    assert case is not None
    return case


async def the_wake(wakes: Wakes, trigger_id: str) -> Wake:
    wake = await wakes.wake(trigger_id)
    assert wake is not None
    return wake


async def operations(store: Store, thread_id: str | None = None) -> list[str]:
    assert not (await store.verify()).faults
    return [entry.operation for entry in await store.audit(workspace_id=WORKSPACE, thread_id=thread_id, limit=200)]


def placed(cases: tuple[Case, ...]) -> list[tuple[str, str]]:
    return [(case.thread_id, case.agent_id) for case in cases]


def becoming(status: ThreadStatus) -> Callable[..., Change[None]]:
    return lambda facts: Change(status=(status, "so"), audit=(note(facts.now, "set_thread_status", facts.thread.thread_id),))


# ---- what there is to decide on


async def test_what_waits_for_somebody_else_is_a_case(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    assert await wakes.cases() == ()
    await told(store, thread_id)
    await told(store, thread_id)
    (case,) = await wakes.cases()
    assert (case.thread_id, case.agent_id, case.workspace_id) == (thread_id, REVIEWER, WORKSPACE)
    assert (case.unread, case.unread_last, case.last_seq, case.cursor) == (2, 2, 2, 0)
    assert (case.thread_status, case.takes_part, case.paused, case.wake) == (ThreadStatus.ACTIVE, True, False, None)
    first, second = (await store.read(thread_id, reader="", since_seq=0, limit=9)).messages
    assert (case.unread_since, case.unread_last_at) == (first.created_at, second.created_at)
    await acknowledged(store, thread_id, REVIEWER, 1)
    (case,) = await wakes.cases()
    assert (case.unread, case.unread_since, case.cursor) == (1, second.created_at, 1)
    await acknowledged(store, thread_id, REVIEWER, 2)
    assert await wakes.cases() == ()


async def test_only_what_is_meant_for_one_counts(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store, AGENT, REVIEWER, "watcher")
    await told(store, thread_id, to="watcher")
    await told(store, thread_id, sender=REVIEWER, to=AGENT)
    await told(store, thread_id, sender=GUARD, system=True)
    assert sorted(placed(await wakes.cases())) == [(thread_id, AGENT), (thread_id, "watcher")]
    case = await the_case(wakes, thread_id)
    assert (case.unread, case.unread_since, case.unread_last, case.last_seq) == (0, None, 0, 3)
    assert (await the_case(wakes, thread_id, AGENT)).unread == 1
    assert (await the_case(wakes, thread_id, AGENT)).unread_last == 2
    stranger = await the_case(wakes, thread_id, "stranger")
    assert (stranger.takes_part, stranger.unread) == (False, 0)
    assert await wakes.case(new_id(), REVIEWER) is None


async def test_a_thread_that_is_not_active_is_a_case_only_for_its_open_trigger(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    await told(store, thread_id)
    assert placed(await wakes.cases()) == [(thread_id, REVIEWER)]
    ask = Ask(workspace_id=WORKSPACE, thread_id=thread_id)
    await store.change(ask, becoming(ThreadStatus.BLOCKED))
    assert await wakes.cases() == ()
    trigger_id = await asked_for(store, thread_id)
    (case,) = await wakes.cases()
    assert (case.thread_status, case.status_reason, case.unread) == (ThreadStatus.BLOCKED, "so", 1)
    assert case.wake is not None
    assert case.wake.trigger_id == trigger_id
    claim = await claimed(wakes, trigger_id)
    assert await wakes.settle(claim, status=Status.CANCELLED, outcome=Outcome.FAILED, code=Code.THREAD_AUTO_BLOCKED)
    assert await wakes.cases() == ()
    await store.change(ask, becoming(ThreadStatus.ACTIVE))
    assert placed(await wakes.cases()) == [(thread_id, REVIEWER)]


async def test_cases_come_oldest_first_and_page_by_page(store: Store, wakes: Wakes) -> None:
    threads = [await opened_thread(store) for _ in range(7)]
    for thread_id in reversed(threads):
        await told(store, thread_id)
    order = [(thread_id, REVIEWER) for thread_id in reversed(threads)]
    assert placed(await wakes.cases()) == order
    first = await wakes.cases(limit=3)
    second = await wakes.cases(limit=3, after=first[-1])
    third = await wakes.cases(limit=3, after=second[-1])
    assert placed(first + second + third) == order
    assert await wakes.cases(agents=["nobody"]) == ()
    assert placed(await wakes.cases(agents=[REVIEWER, "nobody"], limit=1)) == order[:1]


async def test_what_is_known_of_the_agent_comes_with_the_case(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    await told(store, thread_id)
    sessions = [
        Session(
            workspace_id=WORKSPACE,
            agent_id=REVIEWER,
            session_id=f"s-{number}",
            runtime="codex",
            management_mode=ManagementMode.MANAGED,
            resumable=True,
            status=SessionStatus.IDLE,
            heartbeat_at=NOON + timedelta(seconds=number),
        )
        for number in (1, 2)
    ]
    ask = Ask(workspace_id=WORKSPACE, agent_id=REVIEWER)
    for session in sessions:
        await store.change(ask, lambda facts, session=session: Change(session=session))  # type: ignore[misc]
    await wakes.pause(WORKSPACE, REVIEWER, paused=True, actor="operator:ada")
    (case,) = await wakes.cases()
    assert case.sessions == tuple(reversed(sessions))
    assert case.paused
    assert case == await wakes.case(thread_id, REVIEWER)
    assert not (await the_case(wakes, thread_id, AGENT)).sessions


# ---- triggers and claims


async def test_a_trigger_is_made_once_for_a_case_and_audited(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    wake = made_of_unread(thread_id)
    later = replace(wake, due_at=NOON + timedelta(seconds=9), forced=True)
    assert await wakes.queue(later)
    assert not await wakes.queue(made_of_unread(thread_id))
    assert not await wakes.queue(made_of_unread(new_id()))
    assert await wakes.queue(made_of_unread(thread_id, agent_id=AGENT))
    assert await the_wake(wakes, wake.trigger_id) == later
    assert (await the_case(wakes, thread_id)).wake == later
    assert (await operations(store, thread_id))[1:] == ["queue_trigger", "queue_trigger"]
    assert [one.trigger_id for one in await store.triggers(thread_id) if one.target == REVIEWER] == [wake.trigger_id]


async def test_of_two_supervisors_one_gets_it(store: Store, open_wakes: OpenWakes) -> None:
    several = [await open_wakes() for _ in range(2)]
    for _ in range(10):
        thread_id = await opened_thread(store)
        trigger_id = await asked_for(store, thread_id)
        claims = await asyncio.gather(
            *(one.claim(trigger_id, holder=f"{number}", lease=LEASE) for number, one in enumerate(several))
        )
        (claim,) = [one for one in claims if one is not None]
        wake = await the_wake(several[0], trigger_id)
        assert (wake.status, wake.holder, wake.fence) == (Status.CLAIMED, claim.holder, claim.fence)
        assert wake.lease_until == claim.lease_until


async def test_who_comes_after_a_lapsed_lease_has_a_higher_fence_and_the_other_writes_nothing(
    store: Store, open_wakes: OpenWakes
) -> None:
    one, two = await open_wakes(), await open_wakes()
    thread_id = await opened_thread(store)
    trigger_id = await asked_for(store, thread_id)
    stale = await claimed(one, trigger_id, "one", AT_ONCE)
    fresh = await taken_up(two, trigger_id, "two")
    assert fresh.fence > stale.fence
    before, audit = await the_wake(two, trigger_id), await operations(store)
    assert await one.renew(stale, lease=LEASE) is None
    assert not await one.begin(stale, attempt(stale))
    assert not await one.end(stale, replace(attempt(stale), ended_at=NOON, outcome=Outcome.FAILED))
    assert not await one.release(stale, due_at=NOON)
    assert not await one.settle(stale, status=Status.DONE, outcome=Outcome.TRIGGERED, bounce="nothing")
    assert await the_wake(two, trigger_id) == before
    assert await operations(store) == audit
    assert await two.begin(fresh, attempt(fresh))
    assert await two.settle(fresh, status=Status.DONE, outcome=Outcome.TRIGGERED)
    assert await one.claim(trigger_id, holder="one", lease=LEASE) is None


async def test_a_lease_that_has_ended_is_no_right_to_write_even_if_nobody_took_it(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    trigger_id = await asked_for(store, thread_id)
    claim = await claimed(wakes, trigger_id, lease=timedelta(milliseconds=30))
    async with asyncio.timeout(DEADLINE):
        while await wakes.begin(claim, attempt(claim)):
            await asyncio.sleep(0.005)
    assert await wakes.renew(claim, lease=LEASE) is None
    assert not await wakes.settle(claim, status=Status.DONE, outcome=Outcome.TRIGGERED)


async def test_a_renewed_claim_is_not_taken_up(store: Store, open_wakes: OpenWakes) -> None:
    one, two = await open_wakes(), await open_wakes()
    trigger_id = await asked_for(store, await opened_thread(store))
    claim = await claimed(one, trigger_id, "one", timedelta(seconds=20))
    renewed = await one.renew(claim, lease=LEASE)
    assert renewed is not None
    assert renewed.lease_until > claim.lease_until
    assert renewed.fence == claim.fence
    wake = await the_wake(one, trigger_id)
    assert wake.lease_until == renewed.lease_until
    assert await two.claim(trigger_id, holder="two", lease=LEASE) is None


async def test_a_deferral_puts_it_back_and_is_counted(store: Store, wakes: Wakes) -> None:
    trigger_id = await asked_for(store, await opened_thread(store))
    due = NOON + timedelta(seconds=5)
    claim = await claimed(wakes, trigger_id)
    assert await wakes.release(claim, due_at=due, deferred=True, code=Code.OPERATOR_BUSY)
    assert not await wakes.release(claim, due_at=due, deferred=True)
    wake = await the_wake(wakes, trigger_id)
    assert (wake.status, wake.holder, wake.due_at, wake.code) == (Status.QUEUED, "", due, Code.OPERATOR_BUSY)
    assert (wake.deferrals, wake.deferred_at) == (1, NOON)
    again = await claimed(wakes, trigger_id)
    assert again.fence > claim.fence
    assert await wakes.release(again, due_at=due)
    assert (await the_wake(wakes, trigger_id)).deferrals == 1


# ---- attempts


async def test_attempts_are_kept_and_counted(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    trigger_id = await asked_for(store, thread_id)
    claim = await claimed(wakes, trigger_id)
    first = attempt(claim)
    assert await wakes.begin(claim, first)
    assert (await the_wake(wakes, trigger_id)).attempts == (first,)
    failed = replace(first, ended_at=NOON + timedelta(seconds=1), outcome=Outcome.FAILED, code=Code.PANE_DEAD, detail="gone")
    assert await wakes.end(claim, failed)
    assert await wakes.end(claim, replace(failed, outcome=Outcome.TRIGGERED))  # it had an end: nothing is written
    assert not await wakes.begin(claim, first)
    second = replace(attempt(claim, 2, way=Way.RESUME, at=NOON + timedelta(seconds=2)), cycle=7)
    assert await wakes.begin(claim, second)
    deferral = replace(attempt(claim, 3), ended_at=NOON, outcome=Outcome.DEFERRED, code=Code.OPERATOR_BUSY)
    assert await wakes.end(claim, deferral)
    case = await the_case(wakes, thread_id)
    assert case.wake is not None
    assert case.wake.attempts == (failed, second, deferral)
    assert case.attempted_at == (second.began_at, first.began_at)
    assert case.failed_at == ()  # a terminal that did not answer is no failure of the runtime
    crashed = replace(second, ended_at=NOON + timedelta(seconds=3), outcome=Outcome.FAILED, code=Code.WAKE_FAILED)
    assert await wakes.end(claim, crashed)
    assert (await the_case(wakes, thread_id)).failed_at == (crashed.ended_at,)
    more = range(4, 30)
    for number in more:
        later = NOON + timedelta(seconds=number)
        turn = attempt(claim, number, way=Way.SPAWN, at=later)
        assert await wakes.end(claim, replace(turn, ended_at=later, outcome=Outcome.FAILED))
    newest = [NOON + timedelta(seconds=number) for number in reversed(more)][:20]
    assert list((await the_case(wakes, thread_id)).failed_at) == newest
    assert list((await the_case(wakes, thread_id)).attempted_at) == newest
    other = await opened_thread(store)
    assert list((await the_case(wakes, other)).failed_at) == newest
    assert (await the_case(wakes, other)).attempted_at == ()


async def test_the_next_supervisor_ends_what_the_last_one_began(store: Store, open_wakes: OpenWakes) -> None:
    one, two = await open_wakes(), await open_wakes()
    thread_id = await opened_thread(store)
    trigger_id = await asked_for(store, thread_id)
    stale = await claimed(one, trigger_id, "one")
    assert await one.begin(stale, attempt(stale))
    assert await one.renew(stale, lease=AT_ONCE)
    claim = await taken_up(two, trigger_id, "two")
    wake = (await the_case(two, thread_id)).wake
    assert wake is not None
    (left,) = wake.attempts
    assert (left.outcome, left.holder, left.fence) == (None, "one", stale.fence)
    assert await two.end(claim, replace(left, ended_at=NOON, outcome=Outcome.TRIGGERED, session_id="s-2"))
    assert (await the_wake(two, trigger_id)).attempts == (
        replace(left, ended_at=NOON, outcome=Outcome.TRIGGERED, session_id="s-2"),
    )


# ---- ends


async def test_an_end_is_audited_and_bounced_in_one_commit(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    await told(store, thread_id)
    trigger_id = await asked_for(store, thread_id)
    claim = await claimed(wakes, trigger_id)
    assert await wakes.begin(claim, attempt(claim))
    failed = replace(attempt(claim), ended_at=NOON, outcome=Outcome.FAILED, code=Code.WAKE_FAILED)
    assert await wakes.end(claim, failed)
    ended = {"status": Status.DEAD_LETTERED, "outcome": Outcome.DEAD_LETTERED, "code": Code.WAKE_FAILED}
    assert await wakes.settle(claim, **ended, detail="three ways", bounce="reviewer could not be woken")  # type: ignore[arg-type]
    assert not await wakes.settle(claim, **ended)  # type: ignore[arg-type]
    wake = await the_wake(wakes, trigger_id)
    assert (wake.status, wake.outcome, wake.code) == tuple(ended.values())
    assert (wake.detail, wake.ended_at, wake.holder, wake.lease_until) == ("three ways", NOON, "", None)
    message = (await store.read(thread_id, reader="", since_seq=1, limit=9)).messages[0]
    assert (message.sender, message.kind, message.body) == (GUARD, MessageKind.SYSTEM, "reviewer could not be woken")
    assert (message.metadata["trigger_id"], message.traceparent) == (trigger_id, "00-trace")
    assert [one.message_id for one in await store.search("woken", workspace_id=WORKSPACE)] == [message.message_id]
    assert [one.status for one in await store.triggers(thread_id)] == ["dead_lettered"]
    entry = (await store.audit(workspace_id=WORKSPACE, thread_id=thread_id, limit=99))[-1]
    assert entry.operation == "settle_trigger"
    assert entry.after is not None
    assert entry.after["outcome"] == "dead_lettered"
    assert [one["code"] for one in entry.after["attempts"]] == ["WAKE_FAILED"]
    assert not (await store.verify()).faults
    case = await the_case(wakes, thread_id)
    assert case.wake == wake
    assert case.unread == 1  # the bounce is nothing to be woken for
    assert (await post(store, thread_id, "and on")).seq == 3


async def test_words_for_an_agent_at_work_are_a_message_that_only_it_reads_and_is_woken_for(
    store: Store, wakes: Wakes
) -> None:
    thread_id = await opened_thread(store)
    claim = await claimed(wakes, await asked_for(store, thread_id))
    assert await wakes.settle(claim, status=Status.DONE, outcome=Outcome.ALREADY_ACTIVE, words="look at it")
    (message,) = (await store.read(thread_id, reader="", since_seq=0, limit=9)).messages
    assert (message.sender, message.to, message.kind, message.body) == (GUARD, "reviewer", MessageKind.CHAT, "look at it")
    assert (await the_case(wakes, thread_id)).unread == 1
    assert not (await store.verify()).faults


async def test_nothing_is_told_to_a_thread_that_is_over(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    trigger_id = await asked_for(store, thread_id)
    await store.change(Ask(workspace_id=WORKSPACE, thread_id=thread_id), becoming(ThreadStatus.CLOSED))
    claim = await claimed(wakes, trigger_id)
    assert await wakes.settle(
        claim, status=Status.CANCELLED, outcome=Outcome.FAILED, bounce="nobody hears it", words="nor that"
    )
    found = await store.thread(thread_id)
    assert found is not None
    assert found.last_seq == 0
    assert (await operations(store, thread_id))[-1] == "settle_trigger"


async def test_of_all_that_ended_the_last_is_shown(store: Store, wakes: Wakes, open_wakes: OpenWakes) -> None:
    thread_id = await opened_thread(store)
    ids = []
    for number in range(3):
        now = NOON + timedelta(seconds=number)
        later = await open_wakes(clock=lambda now=now: now)
        ids.append(await asked_for(store, thread_id, at=now))
        claim = await claimed(later, ids[-1])
        assert await later.settle(claim, status=Status.DONE, outcome=Outcome.TRIGGERED)
    case = await the_case(wakes, thread_id)
    assert case.wake is not None
    assert case.wake.trigger_id == ids[-1]
    assert [one.trigger_id for one in await wakes.wakes(thread_id=thread_id)] == ids[::-1]
    assert await wakes.wakes(status=Status.QUEUED) == ()
    assert len(await wakes.wakes(agent_id=REVIEWER, status=Status.DONE, limit=2)) == 2
    assert await wakes.wake(new_id("trg")) is None


# ---- several at once


async def test_what_was_asked_for_meanwhile_is_told_with_the_first(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    await told(store, thread_id)
    unread = made_of_unread(thread_id)
    assert await wakes.queue(unread)
    first = await asked_for(store, thread_id, prompt="look at F-1", at=NOON + timedelta(seconds=1))
    second = await asked_for(store, thread_id, prompt="and at F-2", at=NOON + timedelta(seconds=2))
    (case,) = await wakes.cases()
    assert case.wake is not None
    assert (case.wake.trigger_id, case.wake.prompt) == (unread.trigger_id, "look at F-1\n\nand at F-2")
    assert (case.wake.requested_by, case.wake.reason) == (AGENT, "look")
    assert await wakes.claim(first, holder="one", lease=LEASE) is None
    claim = await claimed(wakes, unread.trigger_id)
    late = await asked_for(store, thread_id, prompt="and F-3", at=NOON + timedelta(seconds=3))
    (case,) = await wakes.cases()
    assert case.wake is not None
    assert case.wake.prompt == "look at F-1\n\nand at F-2"
    assert await wakes.begin(claim, attempt(claim))
    assert (await the_wake(wakes, unread.trigger_id)).prompt == "look at F-1\n\nand at F-2"
    assert await wakes.claim(late, holder="two", lease=LEASE) is None
    assert await wakes.settle(claim, status=Status.DONE, outcome=Outcome.TRIGGERED)
    statuses = {one.trigger_id: one.status for one in await wakes.wakes(thread_id=thread_id)}
    assert statuses == {
        unread.trigger_id: Status.DONE, first: Status.DONE, second: Status.DONE, late: Status.QUEUED,
    }  # fmt: skip
    taken_in = await the_wake(wakes, first)
    assert (taken_in.detail, taken_in.outcome) == (f"taken into {unread.trigger_id}", Outcome.TRIGGERED)
    assert taken_in.ended_at == NOON
    (case,) = await wakes.cases()
    assert case.wake is not None
    assert (case.wake.trigger_id, case.wake.prompt) == (late, "and F-3")
    entry = (await store.audit(workspace_id=WORKSPACE, thread_id=thread_id, limit=99))[-1]
    assert entry.after is not None
    assert entry.after["taken_in"] == [first, second]
    await claimed(wakes, late)


async def test_nothing_is_claimed_that_is_more_than_was_shown(store: Store, open_wakes: OpenWakes) -> None:
    one, two = await open_wakes(), await open_wakes()
    thread_id = await opened_thread(store)
    first = await asked_for(store, thread_id, prompt="one")
    await one.cases()
    second = await asked_for(store, thread_id, prompt="two", at=NOON + timedelta(seconds=1))
    await two.cases()
    claim = await claimed(two, first)
    assert await two.release(claim, due_at=NOON)  # it has both now; nobody was told yet
    assert await one.claim(first, holder="one", lease=LEASE) is None
    case = await the_case(one, thread_id)
    assert case.wake is not None
    assert case.wake.prompt == "one\n\ntwo"
    await claimed(one, first, "one")
    assert (await the_wake(one, second)).status is Status.QUEUED


async def test_what_was_taken_back_meanwhile_is_not_told(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    first = await asked_for(store, thread_id, prompt="one")
    second = await asked_for(store, thread_id, prompt="two", at=NOON + timedelta(seconds=1))
    await wakes.cases()
    await wakes.steer(second, Status.CANCELLED, actor="operator:ada", reason="not that")
    assert await wakes.claim(first, holder="one", lease=LEASE) is None
    assert (await the_wake(wakes, first)).status is Status.QUEUED
    (case,) = await wakes.cases()
    assert case.wake is not None
    assert case.wake.prompt == "one"
    await claimed(wakes, first)


async def test_of_those_that_ended_together_the_first_in_line_is_shown(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    first, second = sorted(new_id("trg") for _ in range(2))
    await asked_for(store, thread_id, prompt="one", trigger_id=first)
    await asked_for(store, thread_id, prompt="two", at=NOON + timedelta(seconds=1), trigger_id=second)
    await wakes.cases()
    claim = await claimed(wakes, first)
    assert await wakes.settle(claim, status=Status.DONE, outcome=Outcome.TRIGGERED)
    case = await the_case(wakes, thread_id)
    assert case.wake is not None
    assert (case.wake.trigger_id, case.wake.prompt) == (first, "one\n\ntwo")


async def test_who_was_told_already_is_not_told_what_came_later(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    first = await asked_for(store, thread_id, prompt="one")
    claim = await claimed(wakes, first)
    assert await wakes.begin(claim, attempt(claim))
    assert await wakes.release(claim, due_at=NOON)
    second = await asked_for(store, thread_id, prompt="two", at=NOON + timedelta(seconds=1))
    (case,) = await wakes.cases()
    assert case.wake is not None
    assert case.wake.prompt == "one"
    again = await claimed(wakes, first)
    assert await wakes.settle(again, status=Status.DONE, outcome=Outcome.TRIGGERED)
    await claimed(wakes, second)


async def test_what_was_told_once_is_not_taken_in_by_another(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    first = await asked_for(store, thread_id, prompt="one", at=NOON - timedelta(seconds=9))
    claim = await claimed(wakes, first)
    assert await wakes.begin(claim, attempt(claim))
    await wakes.steer(first, Status.CANCELLED, actor="operator:ada", reason="wait")
    second = await asked_for(store, thread_id, prompt="two", at=NOON - timedelta(seconds=8))
    await wakes.steer(first, Status.QUEUED, actor="operator:ada", reason="now")
    (case,) = await wakes.cases()
    assert case.wake is not None
    assert (case.wake.trigger_id, case.wake.prompt) == (second, "two")


async def test_prompts_that_are_too_long_together_wait(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    await asked_for(store, thread_id, prompt="ä" * 2000)
    await asked_for(store, thread_id, prompt="b" * 4190, at=NOON + timedelta(seconds=1))
    (case,) = await wakes.cases()
    assert case.wake is not None
    assert len(case.wake.prompt.encode()) == 4000 + 4190 + 2
    await asked_for(store, thread_id, prompt="c", at=NOON + timedelta(seconds=2))
    (case,) = await wakes.cases()
    assert case.wake is not None
    assert "c" not in case.wake.prompt


# ---- operators


async def test_an_operator_cancels_and_the_claim_is_lost(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    trigger_id = await asked_for(store, thread_id)
    claim = await claimed(wakes, trigger_id)
    wake = await wakes.steer(trigger_id, Status.CANCELLED, actor="operator:ada", reason="not now")
    assert wake is not None
    assert (wake.status, wake.detail, wake.ended_at, wake.holder) == (Status.CANCELLED, "not now", NOON, "")
    assert not await wakes.begin(claim, attempt(claim))
    assert not await wakes.settle(claim, status=Status.DONE, outcome=Outcome.TRIGGERED)
    assert await wakes.steer(trigger_id, Status.CANCELLED, actor="operator:ada", reason="again") == wake
    assert await wakes.steer(new_id("trg"), Status.CANCELLED, actor="operator:ada", reason="") is None
    assert (await operations(store, thread_id))[2:] == ["cancel_trigger"]
    entry = (await store.audit(workspace_id=WORKSPACE, thread_id=thread_id, limit=99))[-1]
    assert (entry.actor, entry.role, entry.before) == ("operator:ada", "operator", {"status": "claimed"})


async def test_a_trigger_is_cancelled_that_nobody_has_claimed_yet(store: Store, wakes: Wakes) -> None:
    trigger_id = await asked_for(store, await opened_thread(store))
    wake = await wakes.steer(trigger_id, Status.CANCELLED, actor="operator:ada", reason="not now")
    assert wake is not None
    assert wake.status is Status.CANCELLED
    assert await wakes.claim(trigger_id, holder="one", lease=LEASE) is None


async def test_a_retry_begins_anew(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    first = await asked_for(store, thread_id, prompt="one", at=NOON - timedelta(seconds=9))
    second = await asked_for(store, thread_id, prompt="two", at=NOON - timedelta(seconds=8))
    third = await asked_for(store, thread_id, prompt="three", at=NOON - timedelta(seconds=7))
    await wakes.cases()
    claim = await claimed(wakes, first)
    assert await wakes.steer(third, Status.CANCELLED, actor="operator:ada", reason="not that")
    begun = attempt(claim, at=NOON - timedelta(seconds=1))
    assert await wakes.begin(claim, begun)
    assert await wakes.release(claim, due_at=NOON, deferred=True)
    await wakes.cases()
    claim = await claimed(wakes, first)
    assert await wakes.settle(claim, status=Status.DEAD_LETTERED, outcome=Outcome.DEAD_LETTERED, code=Code.WAKE_FAILED)
    wake = await wakes.steer(first, Status.QUEUED, actor="operator:ada", reason="fixed", forced=True)
    assert wake is not None
    assert (wake.status, wake.forced, wake.due_at, wake.renewed_at) == (Status.QUEUED, True, NOON, NOON)
    assert (wake.outcome, wake.code, wake.ended_at, wake.deferrals, wake.deferred_at) == (None, None, None, 0, None)
    assert [one.number for one in wake.attempts] == [1]
    with_it = await the_wake(wakes, second)
    assert (with_it.status, with_it.outcome, with_it.ended_at) == (Status.QUEUED, None, None)
    assert (await the_wake(wakes, third)).status is Status.CANCELLED
    (case,) = await wakes.cases()
    assert case.wake is not None
    assert case.wake.prompt == "one\n\ntwo"
    assert await wakes.claim(second, holder="one", lease=LEASE) is None
    again = await claimed(wakes, first)
    assert again.fence > claim.fence
    assert await wakes.settle(again, status=Status.DONE, outcome=Outcome.TRIGGERED)
    assert (await the_wake(wakes, second)).status is Status.DONE
    assert await wakes.steer(first, Status.QUEUED, actor="operator:ada", reason="") == await the_wake(wakes, first)
    assert (await the_wake(wakes, third)).status is Status.CANCELLED
    ops = ["cancel_trigger", "settle_trigger", "retry_trigger", "settle_trigger"]
    assert (await operations(store, thread_id))[4:] == ops


async def test_a_queued_trigger_is_hurried_and_forced(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    later = replace(made_of_unread(thread_id), due_at=NOON + timedelta(hours=1))
    assert await wakes.queue(later)
    assert await the_wake(wakes, later.trigger_id) == later
    wake = await wakes.steer(later.trigger_id, Status.QUEUED, actor="operator:ada", reason="now", forced=True)
    assert wake is not None
    assert (wake.due_at, wake.forced, wake.renewed_at) == (NOON, True, None)
    assert await wakes.steer(later.trigger_id, Status.QUEUED, actor="operator:ada", reason="now") == wake
    assert (await operations(store, thread_id))[1:] == ["queue_trigger", "retry_trigger"]
    patient = await opened_thread(store)
    leading = await asked_for(store, patient, at=NOON - timedelta(seconds=1))
    follower = await asked_for(store, patient, at=NOON)
    assert await wakes.steer(follower, Status.QUEUED, actor="operator:ada", reason="now", forced=True)
    case = await the_case(wakes, patient)
    assert case.wake is not None
    assert (case.wake.trigger_id, case.wake.forced) == (leading, True)
    assert not (await the_wake(wakes, leading)).forced
    untouched = await asked_for(store, await opened_thread(store))
    wake = await wakes.steer(untouched, Status.QUEUED, actor="operator:ada", reason="now", forced=True)
    assert wake is not None
    assert wake.forced


async def test_hurrying_what_was_taken_in_hurries_the_whole(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    first = await asked_for(store, thread_id, prompt="one")
    second = await asked_for(store, thread_id, prompt="two", at=NOON + timedelta(seconds=1))
    await wakes.cases()
    claim = await claimed(wakes, first)
    assert await wakes.release(claim, due_at=NOON + timedelta(hours=1), deferred=True)
    assert await wakes.steer(second, Status.QUEUED, actor="operator:ada", reason="now", forced=True)
    wake = await the_wake(wakes, first)
    assert (wake.due_at, wake.forced) == (NOON, True)


async def test_a_cancelled_trigger_lets_go_of_what_it_had_taken_in(store: Store, wakes: Wakes) -> None:
    thread_id = await opened_thread(store)
    first = await asked_for(store, thread_id, prompt="one")
    second = await asked_for(store, thread_id, prompt="two", at=NOON + timedelta(seconds=1))
    await wakes.cases()
    await claimed(wakes, first)
    await wakes.steer(first, Status.CANCELLED, actor="operator:ada", reason="not that")
    (case,) = await wakes.cases()
    assert case.wake is not None
    assert (case.wake.trigger_id, case.wake.prompt) == (second, "two")
    await claimed(wakes, second)


async def test_what_is_claimed_goes_on_whatever_comes_before_it(store: Store, wakes: Wakes, open_wakes: OpenWakes) -> None:
    thread_id = await opened_thread(store)
    first = await asked_for(store, thread_id, at=NOON - timedelta(seconds=9))
    second = await asked_for(store, thread_id, at=NOON - timedelta(seconds=8))
    await wakes.steer(first, Status.CANCELLED, actor="operator:ada", reason="not now")
    await claimed(wakes, second, "one", AT_ONCE)
    behind = await open_wakes(clock=lambda: NOON - timedelta(hours=1))  # another host, whose clock is slow
    await behind.steer(first, Status.QUEUED, actor="operator:ada", reason="now")
    for case in (*await wakes.cases(), await the_case(wakes, thread_id)):
        assert case.wake is not None
        assert case.wake.trigger_id == second
    assert await wakes.claim(first, holder="two", lease=LEASE) is None
    claim = await taken_up(wakes, second, "two")
    assert await wakes.settle(claim, status=Status.DONE, outcome=Outcome.TRIGGERED)
    await claimed(wakes, first)


async def test_a_pause_is_audited_in_the_workspaces_chain(store: Store, wakes: Wakes) -> None:
    assert await wakes.pause(WORKSPACE, REVIEWER, paused=True, actor="operator:ada")
    assert not await wakes.pause(WORKSPACE, REVIEWER, paused=True, actor="operator:bob")
    assert await wakes.paused() == {(WORKSPACE, REVIEWER)}
    thread_id = await opened_thread(store)
    assert (await the_case(wakes, thread_id)).paused
    assert await wakes.pause(WORKSPACE, REVIEWER, paused=False, actor="operator:ada")
    assert not await wakes.pause(WORKSPACE, REVIEWER, paused=False, actor="operator:ada")
    assert not (await the_case(wakes, thread_id)).paused
    assert await operations(store) == ["pause_agent", "create_thread", "resume_agent"]


# ---- sessions


async def test_a_session_has_one_writer(open_wakes: OpenWakes) -> None:
    one, two = await open_wakes(), await open_wakes()
    held = await asyncio.gather(
        *(store.hold_session("s-1", holder=f"{number}", lease=LEASE) for number, store in enumerate((one, two) * 3))
    )
    (winner,) = [number for number, fence in enumerate(held) if fence is not None]
    assert held[winner] == await one.hold_session("s-1", holder=f"{winner}", lease=LEASE)
    await one.leave_session("s-1", holder="somebody else")
    assert await two.hold_session("s-1", holder="two", lease=LEASE) is None
    await one.leave_session("s-1", holder=f"{winner}")
    fence = await two.hold_session("s-1", holder="two", lease=AT_ONCE)
    assert fence is not None
    assert fence > (held[winner] or 0)
    taken = await one.hold_session("s-1", holder="one", lease=LEASE)
    assert taken is not None
    assert taken > fence
    assert await one.hold_session("s-2", holder="one", lease=LEASE) == 1


async def test_a_turn_leaves_a_session_that_can_be_resumed(store: Store, wakes: Wakes) -> None:
    claim = await claimed(wakes, await asked_for(store, thread_id := await opened_thread(store)))
    spawned = replace(attempt(claim, way=Way.SPAWN), session_id="")
    assert await wakes.begin(claim, spawned)
    ended = replace(spawned, session_id="s-9", ended_at=NOON, outcome=Outcome.FALLBACK_SPAWNED)
    assert await wakes.end(claim, ended)
    (known,) = (await the_case(wakes, thread_id)).sessions
    assert (known.session_id, known.agent_id, known.workspace_id) == ("s-9", REVIEWER, WORKSPACE)
    assert (known.management_mode, known.status) == (ManagementMode.UNMANAGED, SessionStatus.OFFLINE)
    assert (known.resumable, known.heartbeat_at) == (True, NOON)
    live = replace(attempt(claim, 2, session_id="pane"), ended_at=NOON, outcome=Outcome.TRIGGERED)
    gone = replace(attempt(claim, 3, way=Way.RESUME, session_id="gone"), ended_at=NOON, outcome=Outcome.FAILED)
    for one in (live, replace(gone, code=Code.RUNTIME_NOT_FOUND)):
        assert await wakes.end(claim, one)
    assert (await the_case(wakes, thread_id)).sessions == (known,)


@pytest.mark.parametrize(
    ("mode", "heard", "goes_by"),
    [
        (ManagementMode.UNMANAGED, NOON, (SessionStatus.OFFLINE, True)),
        (ManagementMode.UNMANAGED, NOON + timedelta(seconds=1), (SessionStatus.ACTIVE, False)),
        (ManagementMode.MANAGED, NOON, (SessionStatus.ACTIVE, False)),
    ],
)
async def test_a_session_that_speaks_for_itself_is_left_to_it(
    store: Store, wakes: Wakes, mode: ManagementMode, heard: datetime, goes_by: tuple[SessionStatus, bool]
) -> None:
    claim = await claimed(wakes, await asked_for(store, thread_id := await opened_thread(store)))
    session = Session(
        workspace_id=WORKSPACE,
        agent_id=REVIEWER,
        session_id="s-9",
        runtime="codex",
        management_mode=mode,
        resumable=False,
        status=SessionStatus.ACTIVE,
        heartbeat_at=heard,
    )
    await store.change(Ask(workspace_id=WORKSPACE, agent_id=REVIEWER), lambda _: Change(session=session))
    resumed = attempt(claim, way=Way.RESUME, session_id="s-9")
    assert await wakes.begin(claim, resumed)
    assert await wakes.end(claim, replace(resumed, ended_at=NOON, outcome=Outcome.FALLBACK_RESUMED))
    (known,) = (await the_case(wakes, thread_id)).sessions
    assert (known.status, known.resumable) == goes_by
    assert (known.runtime, known.management_mode) == ("codex", mode)


async def test_sessions_that_were_silent_for_a_quarter_are_forgotten_when_a_trigger_ends(store: Store, wakes: Wakes) -> None:
    claim = await claimed(wakes, await asked_for(store, thread_id := await opened_thread(store)))
    for days in (91, 89):
        session = Session(
            workspace_id=WORKSPACE,
            agent_id=REVIEWER,
            session_id=f"s-{days}",
            runtime="codex",
            management_mode=ManagementMode.UNMANAGED,
            resumable=True,
            status=SessionStatus.OFFLINE,
            heartbeat_at=NOON - timedelta(days=days),
        )
        ask = Ask(workspace_id=WORKSPACE, agent_id=REVIEWER)
        await store.change(ask, lambda _, session=session: Change(session=session))  # type: ignore[misc]
    assert len((await the_case(wakes, thread_id)).sessions) == 2
    assert await wakes.settle(claim, status=Status.DONE, outcome=Outcome.TRIGGERED)
    assert [one.session_id for one in (await the_case(wakes, thread_id)).sessions] == ["s-89"]


# ---- hints


async def test_who_waits_for_work_hears_of_what_another_process_writes(store: Store, open_wakes: OpenWakes) -> None:
    wakes = await open_wakes(clock=utc_now)
    thread_id = await opened_thread(store)
    while await wakes.wait_for_work(seconds=0.3):
        pass
    waiting = asyncio.ensure_future(wakes.wait_for_work(seconds=DEADLINE))
    await asyncio.sleep(0)
    assert not waiting.done()
    await told(store, thread_id)
    assert await waiting
    assert placed(await wakes.cases()) == [(thread_id, REVIEWER)]
    trigger_id = await asked_for(store, thread_id)
    while await wakes.wait_for_work(seconds=0.3):
        pass
    waiting = asyncio.ensure_future(wakes.wait_for_work(seconds=DEADLINE))
    operator = await open_wakes()
    assert await operator.steer(trigger_id, Status.CANCELLED, actor="operator:ada", reason="not now")
    assert await waiting


# ---- size


LOOKS = (
    "wakes.of", "wakes.open", "wakes.open_of_case", "wakes.claim", "wakes.followers", "wakes.hold", "wakes.end",
    "wakes.end_trigger", "wakes.free", "wakes_sqlite.newest", "wakes_sqlite.touched", "wakes_sqlite.unread_of",
    "wakes_sqlite.places", "wakes_sqlite.ended_of", "wakes_sqlite.followers_of", "wakes_sqlite.attempts_of",
    "wakes_sqlite.attempted", "wakes_sqlite.failed", "wakes_sqlite.sessions", "wakes_sqlite.pauses",
)  # fmt: skip
FEW_ROWS = re.compile(r"VIRTUAL TABLE|INDEX bridge_triggers_queued|CONSTANT ROW|SCAN (\(subquery-\d+\)|found|n)$")


@pytest.mark.parametrize("name", LOOKS)
def test_nothing_that_is_asked_often_reads_what_has_gathered_over_years(tmp_path: Path, name: str) -> None:
    SqliteDatabase(str(tmp_path / "kloros.db")).close()
    asked = dict.fromkeys(re.findall(r":([a-z_]+)", sql(name)))
    with closing(sqlite3.connect(tmp_path / "kloros.db")) as db:
        plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {sql(name)}", asked)]
    assert not [step for step in plan if step.startswith("SCAN") and not FEW_ROWS.search(step)]
