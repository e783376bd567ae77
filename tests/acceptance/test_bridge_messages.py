"""Posting, reading, waiting and acknowledging, through the commands and a real store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestration.bridge import wire
from orchestration.bridge.caller import Role
from orchestration.bridge.commanding.beyond_rate import BeyondRate
from orchestration.bridge.commands import Rules
from orchestration.bridge.guards import Limits
from orchestration.bridge.refusal import Code, Refused
from tests.acceptance.bridging import Bridge, bridge, caller, play, refused

EXECUTIONER, REVIEWER, LEAD = caller("executioner"), caller("reviewer"), caller("lead", Role.COORDINATOR)


async def texts(bridge: Bridge, who: Any, thread_id: str, **asked: Any) -> list[str]:
    return [one.body for one in (await bridge.ask(who, "read_messages", thread_id=thread_id, **asked)).messages]


def test_a_conversation_is_read_in_order_and_page_by_page(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        posted = [await bridge.post(EXECUTIONER, thread_id, f"m{number}") for number in range(1, 8)]
        assert [one.seq for one in posted] == list(range(1, 8))
        seen, since = [], 0
        while True:
            page = await bridge.ask(REVIEWER, "read_messages", thread_id=thread_id, since_seq=since, limit=3)
            seen += [one.body for one in page.messages]
            since = page.next_seq
            if not page.has_more:
                break
        assert seen == [f"m{number}" for number in range(1, 8)]
        assert since == 7

    play(place, scene)


def test_a_directed_message_is_read_by_those_it_concerns(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        third = caller("third")
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER, third)
        await bridge.post(EXECUTIONER, thread_id, "for all")
        await bridge.post(EXECUTIONER, thread_id, "quietly retry", to="reviewer")
        for who, sees in ((EXECUTIONER, True), (REVIEWER, True), (third, False), (LEAD, True)):
            assert await texts(bridge, who, thread_id) == ["for all", *(["quietly retry"] if sees else [])]
            found = (await bridge.ask(who, "search_messages", query="quietly")).messages
            assert bool(found) is sees
        page = await bridge.ask(third, "read_messages", thread_id=thread_id, since_seq=1)
        assert (page.messages, page.next_seq, page.has_more) == ((), 2, False)
        assert await bridge.code(EXECUTIONER, "post_message", thread_id=thread_id, body="x", to="nobody") == "NOT_FOUND"

    play(place, scene)


def test_a_page_of_messages_for_others_does_not_end_the_reading(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        third = caller("third")
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER, third)
        for number in range(30):
            await bridge.post(EXECUTIONER, thread_id, f"{number}", to="reviewer")
        await bridge.post(EXECUTIONER, thread_id, "for all")
        since, seen, has_more = 0, [], True
        while has_more:
            page = await bridge.ask(third, "read_messages", thread_id=thread_id, since_seq=since, limit=1)
            seen += [one.body for one in page.messages]
            since, has_more = page.next_seq, page.has_more
        assert (seen, since) == (["for all"], 31)

    play(place, scene)


def test_the_same_key_posts_once_and_another_text_under_it_is_a_conflict(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        first = await bridge.post(EXECUTIONER, thread_id, "done", idempotency_key="k", metadata={"a": 1, "b": 2})
        again = await bridge.post(EXECUTIONER, thread_id, "done", idempotency_key="k", metadata={"b": 2, "a": 1})
        assert again == first
        for asked in (
            {"body": "other"},
            {"metadata": {"a": 2}},
            {"kind": "event", "metadata": {"event_type": "x"}},
            {"to": "reviewer"},
        ):
            asked = {"thread_id": thread_id, "body": "done", "idempotency_key": "k", "metadata": {"a": 1, "b": 2}, **asked}
            assert await bridge.code(EXECUTIONER, "post_message", **asked) == "IDEMPOTENCY_CONFLICT"
        assert (await bridge.post(REVIEWER, thread_id, "mine", idempotency_key="k")).seq == 2
        await bridge.ask(EXECUTIONER, "update_thread_status", thread_id=thread_id, status="resolved")
        assert await bridge.post(EXECUTIONER, thread_id, "done", idempotency_key="k", metadata={"a": 1, "b": 2}) == first
        assert await bridge.code(EXECUTIONER, "post_message", thread_id=thread_id, body="new") == "CONFLICT"
        assert await texts(bridge, REVIEWER, thread_id) == ["done", "mine", "active → resolved"]

    play(place, scene)


def test_what_is_too_large_or_no_text_is_refused_and_audited_without_its_words(place: str) -> None:
    deep: dict[str, Any] = {}
    for _ in range(8):
        deep = {"d": deep}
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"body": "ä" * (32 * 1024 + 1)}, "PAYLOAD_TOO_LARGE"),
        ({"body": "x", "metadata": {"m": "y" * (16 * 1024)}}, "PAYLOAD_TOO_LARGE"),
        ({"body": "x", "metadata": deep}, "INVALID_ARGUMENT"),
        ({"body": "x", "metadata": {"n": float("nan")}}, "INVALID_ARGUMENT"),
        ({"body": "secret\0"}, "INVALID_ARGUMENT"),
        ({"body": "secret", "metadata": {"k": ["\0"]}}, "INVALID_ARGUMENT"),
        ({"body": "x", "kind": "event"}, "INVALID_ARGUMENT"),
        ({"body": "x", "kind": "system"}, "INSUFFICIENT_AUTHORITY"),
        ({"body": "x", "in_reply_to": "msg_" + "0" * 32}, "NOT_FOUND"),
    )

    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        for asked, code in cases:
            assert await bridge.code(EXECUTIONER, "post_message", thread_id=thread_id, **asked) == code, asked
        rows = (await bridge.audit(thread_id=thread_id))[1:]
        assert [row.outcome for row in rows] == [code for _, code in cases]
        assert "secret" not in repr(rows)
        assert await texts(bridge, EXECUTIONER, thread_id) == []
        fits = {"body": "ä" * (32 * 1024), "metadata": deep["d"]}
        assert await bridge.code(EXECUTIONER, "post_message", thread_id=thread_id, **fits) == "done"
        assert await bridge.code(LEAD, "post_message", thread_id=thread_id, body="x", kind="system") == "done"

    play(place, scene)


def test_a_cursor_goes_on_only_and_never_past_the_latest(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        for _ in range(3):
            await bridge.post(EXECUTIONER, thread_id)

        async def ack(number: int) -> tuple[int, bool]:
            acked = await bridge.ask(REVIEWER, "ack_read", thread_id=thread_id, last_read_seq=number)
            return acked.last_read_seq, acked.changed

        assert [await ack(2), await ack(1), await ack(2), await ack(3)] == [(2, True), (2, False), (2, False), (3, True)]
        assert await bridge.code(REVIEWER, "ack_read", thread_id=thread_id, last_read_seq=4) == "INVALID_ARGUMENT"
        listed = (await bridge.ask(REVIEWER, "list_participants", thread_id=thread_id)).participants
        assert {one.agent_id: (one.last_read_seq, one.unread) for one in listed} == {
            "executioner": (0, 0),
            "reviewer": (3, 0),
        }

    play(place, scene)


def test_who_is_ahead_of_the_thread_is_told_where_it_ends_and_does_not_wait(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        for _ in range(3):
            await bridge.post(EXECUTIONER, thread_id)
        assert await texts(bridge, REVIEWER, thread_id, since_seq=3) == []
        for waits in (0, 20):
            for read in (bridge.commands.read_messages, bridge.commands.read_messages_text):
                asked = wire.ReadMessages(thread_id=thread_id, since_seq=4, wait_seconds=waits)
                refusal = await asyncio.wait_for(refused(read(REVIEWER, asked)), 5)
                assert (refusal.code, refusal.rule) == ("INVALID_ARGUMENT", "messages.past_latest")
                assert refusal.details == {"field": "since_seq", "last_seq": 3}
        asked = wire.ReadMessages(thread_id=thread_id, since_seq=4)
        stranger = await refused(bridge.commands.read_messages(caller("stranger"), asked))
        assert (stranger.code, stranger.details) == ("FORBIDDEN", {})
        assert [row.rule for row in await bridge.audit(thread_id=thread_id)].count("messages.past_latest") == 4

    play(place, scene)


def test_unread_is_what_others_have_said_to_one(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER, caller("third"))
        was = {one.agent_id: one for one in (await bridge.ask(LEAD, "list_participants", thread_id=thread_id)).participants}
        for body, to in (("to all", None), ("to one", "reviewer"), ("to another", "third"), ("to all", None)):
            await bridge.ask(EXECUTIONER, "post_message", thread_id=thread_id, body=body, to=to)
        await bridge.post(REVIEWER, thread_id)
        await bridge.ask(REVIEWER, "ack_read", thread_id=thread_id, last_read_seq=was["reviewer"].last_read_seq + 1)

        async def unread(caller: Any) -> int:
            (listed,) = (await bridge.ask(caller, "list_threads", workspace_id="kloros")).threads
            return int(listed.unread)

        listed = (await bridge.ask(LEAD, "list_participants", thread_id=thread_id)).participants
        new = {one.agent_id: one.unread - was[one.agent_id].unread for one in listed}
        assert new == {"executioner": 1, "reviewer": 2, "third": 4}
        assert (await unread(EXECUTIONER), await unread(REVIEWER)) == (1, 2)
        assert "reviewer 2" in (await bridge.ask(EXECUTIONER, "summarize_thread", thread_id=thread_id)).summary

    play(place, scene)


def test_a_search_is_full_of_what_its_reader_may_see(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        await bridge.ask(EXECUTIONER, "post_message", thread_id=thread_id, body="needle for all")
        for _ in range(3):
            await bridge.ask(LEAD, "post_message", thread_id=thread_id, body="needle for one", to="executioner")
        found = (await bridge.ask(REVIEWER, "search_messages", query="needle", limit=2)).messages
        assert [one.body for one in found] == ["needle for all"]
        assert len((await bridge.ask(EXECUTIONER, "search_messages", query="needle", limit=9)).messages) == 4

    play(place, scene)


def test_who_waits_is_answered_by_the_post_or_when_the_time_is_up(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        third = caller("third")
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER, third)
        waits = {"thread_id": thread_id, "wait_seconds": 20}
        waiting = asyncio.create_task(bridge.ask(REVIEWER, "read_messages", **waits))
        other = asyncio.create_task(bridge.ask(third, "read_messages", **{**waits, "wait_seconds": 2}))
        await bridge.waited_for(2)
        await bridge.post(EXECUTIONER, thread_id, "news", to="reviewer")
        assert [one.body for one in (await asyncio.wait_for(waiting, 5)).messages] == ["news"]
        nothing = await asyncio.wait_for(other, 5)
        assert (nothing.messages, nothing.next_seq) == ((), 1)

    play(place, scene)


def test_who_is_taken_out_while_waiting_gets_no_more(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        waiting = asyncio.create_task(bridge.ask(REVIEWER, "read_messages", thread_id=thread_id, wait_seconds=20))
        await bridge.waited_for(1)
        await bridge.ask(EXECUTIONER, "remove_participant", thread_id=thread_id, agent_id="reviewer")
        await bridge.post(EXECUTIONER, thread_id, "not for you")
        assert (await asyncio.wait_for(refused(waiting), 5)).code == "FORBIDDEN"

    play(place, scene)


def test_posts_beyond_the_rate_are_told_when_to_come_again(place: str) -> None:
    rules = Rules(limits=Limits(agent_per_minute=3, thread_per_minute=5, max_turns=0, max_repeats=0))

    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        other = await bridge.thread(EXECUTIONER)
        await bridge.post(EXECUTIONER, other)
        for _ in range(2):
            await bridge.post(EXECUTIONER, thread_id, idempotency_key="k" if _ else None)
        refusal = await refused(bridge.post(EXECUTIONER, thread_id))
        assert (refusal.code, refusal.status, refusal.rule) == ("RATE_LIMITED", 429, "guards.rate.agent")
        assert refusal.retry_after
        assert 0 < refusal.retry_after <= 120
        await bridge.post(EXECUTIONER, thread_id, idempotency_key="k")  # a repeat is no post
        for _ in range(3):
            await bridge.post(REVIEWER, thread_id)
        refusal = await refused(bridge.post(LEAD, thread_id))
        assert (refusal.code, refusal.rule) == ("RATE_LIMITED", "guards.rate.thread")
        assert refusal.retry_after
        bridge.clock.passes(refusal.retry_after)
        await bridge.post(LEAD, thread_id)

    play(place, scene, rules)


def test_a_flood_of_refused_posts_takes_two_rows_of_audit_a_minute(place: str) -> None:
    rules = Rules(limits=Limits(agent_per_minute=2, thread_per_minute=0, max_turns=0, max_repeats=0))

    async def scene(bridge: Bridge) -> None:
        threads = [await bridge.thread(EXECUTIONER, REVIEWER), await bridge.thread(EXECUTIONER)]
        bridge.clock.passes(10)
        for _ in range(2):
            await bridge.post(EXECUTIONER, threads[0])
            await bridge.post(REVIEWER, threads[0])

        async def floods(posts: int) -> None:
            for number in range(posts):
                refusal = await refused(bridge.post(EXECUTIONER, threads[number % 2]))
                assert refusal.rule == "guards.rate.agent"
                bridge.clock.passes(0.01)

        async def rows() -> list[tuple[str, int]]:
            found = [row for row in await bridge.audit() if row.outcome == "RATE_LIMITED"]
            assert {row.operation for row in found} == {"post_message"}
            return [(row.actor, row.after["refusals"] if row.after else 1) for row in found]

        await floods(100)
        await refused(bridge.post(REVIEWER, threads[0]))  # its own first
        await bridge.commands.write_beyond_rate()
        assert await rows() == [("executioner", 1), ("reviewer", 1)], "the minute is not over"
        bridge.clock.passes(20)
        await floods(10)
        bridge.clock.passes(30)
        await bridge.post(EXECUTIONER, threads[0])
        await floods(1)  # the first of the next minute
        await bridge.commands.write_beyond_rate()
        told = await rows()
        assert told == [("executioner", 1), ("reviewer", 1), ("executioner", 1), ("executioner", 109)]
        await floods(5)
        await bridge.commands.write_beyond_rate(all_of_it=True)
        assert await rows() == [*told, ("executioner", 5)]
        assert (await bridge.store.verify()).faults == ()

    play(place, scene, rules)


def test_counts_outlast_a_store_that_is_away() -> None:
    counts, refusal = BeyondRate(), Refused(Code.RATE_LIMITED, "slower", rule="guards.rate.agent")
    began = datetime(2026, 11, 21, 8, tzinfo=UTC)
    for second in range(3):
        counts.count(EXECUTIONER, refusal, began + timedelta(seconds=second))
    (taken,) = counts.due(began + timedelta(minutes=1))
    counts.count(EXECUTIONER, refusal, began + timedelta(minutes=1))
    counts.add(taken)
    (again,) = counts.due(None)
    assert (again.refusals, again.since, again.until) == (4, began, began + timedelta(minutes=1))
    assert counts.due(None) == []


def test_rates_are_counted_in_the_store(place: str) -> None:
    rules = Rules(limits=Limits(agent_per_minute=2, thread_per_minute=0, max_turns=0, max_repeats=0))

    async def scenes() -> None:
        async with bridge(place, rules) as first:
            thread_id = await first.thread(EXECUTIONER)
            await first.post(EXECUTIONER, thread_id)
            await first.post(EXECUTIONER, thread_id)
        async with bridge(place, rules) as second:
            assert await second.code(EXECUTIONER, "post_message", thread_id=thread_id, body="x") == "RATE_LIMITED"

    asyncio.run(scenes())


@pytest.mark.parametrize("together", [40])
def test_posts_at_once_are_numbered_without_a_gap_and_keep_their_own_answers(place: str, together: int) -> None:
    async def scene(bridge: Bridge) -> None:
        writers = [caller(f"w{number}") for number in range(8)]
        thread_id = await bridge.thread(*writers)
        posts = [bridge.post(writers[n % 8], thread_id, f"m{n}", idempotency_key=f"k{n // 2}") for n in range(together)]
        posted = await asyncio.gather(*posts)
        changes = [bridge.code(who, "update_thread_status", thread_id=thread_id, status="resolved") for who in writers]
        assert set(await asyncio.gather(*changes)) == {"done"}
        read = (await bridge.ask(writers[0], "read_messages", thread_id=thread_id, limit=200)).messages
        assert [one.seq for one in read] == list(range(1, together + 2))
        by_id = {one.message_id: one for one in read}
        assert [by_id[one.message_id].body for one in posted] == [f"m{n}" for n in range(together)]
        rows = await bridge.audit(thread_id=thread_id)
        changed = [row for row in rows if row.operation == "update_thread_status" and row.before != row.after]
        assert len(changed) == 1  # the others found it resolved
        assert (await bridge.store.verify()).faults == ()

    play(place, scene)
