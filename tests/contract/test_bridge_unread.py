"""What is unread for whom, in threads so long that counting it anew each time would be felt."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from orchestration.bridge.port import Store
from orchestration.bridge.state import Ask, Change, Facts, Post
from orchestration.bridge.store.lookups import Lookups
from orchestration.bridge.wire import Message, MessageKind
from orchestration.store.postgres import query
from orchestration.store.queries import sql
from tests.contract.bridging import AGENT, WORKSPACE, new_id, note, opened_thread, opening
from tests.contract.conftest import Open

pytestmark = pytest.mark.anyio
OTHER, MANY = "reviewer", 3000


async def say(store: Store, thread_id: str, sender: str, many: int, *, to: str | None = None) -> None:
    """Post many messages in one change."""

    def plan(facts: Facts) -> Change[None]:
        assert facts.thread is not None
        posts = [
            Post(
                message=Message(
                    message_id=new_id("msg"), thread_id=thread_id, seq=seq, sender=sender, kind=MessageKind.CHAT,
                    body="x", metadata={}, to=to, created_at=facts.now,
                ),
                thread_status=facts.thread.status, idempotency_key=None, payload_sha256="d",
            ) for seq in range(facts.next_seq, facts.next_seq + many)
        ]  # fmt: skip
        return Change(posts=tuple(posts), audit=(note(facts.now, "post_message", thread_id),))

    await store.change(Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=sender), plan)


async def have_read(store: Store, thread_id: str, agent_id: str, seq: int) -> None:
    def plan(facts: Facts) -> Change[None]:
        return Change(read=(agent_id, seq), audit=(note(facts.now, "ack_read", thread_id),))

    await store.change(Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=agent_id), plan)


async def unread(store: Store, thread_id: str) -> dict[str, int]:
    """Tell it by agent; a list of threads must tell each the same."""
    counted = {one.agent_id: one.unread for one in await store.participants(thread_id)}
    for agent_id, number in counted.items():
        listed = {one.thread_id: one.unread for one in await store.threads(workspace_id=WORKSPACE, reader=agent_id)}
        assert listed[thread_id] == number
    return counted


def steps_in_sqlite(place: str, name: str, asked: dict[str, Any]) -> int:
    """Count the instructions of SQLite's machine."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    connection = sqlite3.connect(place)
    connection.set_progress_handler(step, 1)
    connection.execute(sql(name), asked).fetchall()
    connection.close()
    return steps


def steps_in_postgres(place: str, name: str, asked: dict[str, Any]) -> int:
    """Count the rows of messages that were looked at."""
    with psycopg.connect(place, cursor_factory=psycopg.ClientCursor) as connection:
        found = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query(name)}".encode(), asked).fetchone()
    assert found is not None

    def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if plan.get("Relation Name") == "bridge_messages":
            yield plan
        for part in plan.get("Plans", ()):
            yield from scans(part)

    (explained,) = found[0] if isinstance(found[0], list) else json.loads(found[0])
    return sum(
        (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]
        for scan in scans(explained["Plan"])
    )


async def test_no_message_is_looked_at_twice_to_count_what_is_unread(
    store: Store, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own posts behind a cursor that is never moved, above all."""
    assert isinstance(store, Lookups)
    ask, queries = store._rows, list[tuple[str, dict[str, Any]]]()

    async def ask_and_keep(name: str, **asked: Any) -> list[Any]:
        queries.append((name, asked))
        return await ask(name, **asked)

    monkeypatch.setattr(store, "_rows", ask_and_keep)
    thread_id = await opened_thread(store, AGENT, OTHER)
    await say(store, thread_id, AGENT, MANY)

    async def steps() -> list[int]:
        queries.clear()
        await store.participants(thread_id)
        await store.threads(workspace_id=WORKSPACE, reader=AGENT)
        return [(steps_in_postgres if "://" in place else steps_in_sqlite)(place, *query) for query in queries]

    assert max(await steps()) >= MANY
    few = await steps()
    assert max(few) < MANY / 2
    await say(store, thread_id, AGENT, MANY)
    await steps()
    assert max(a - b for a, b in zip(await steps(), few, strict=True)) < 10  # however long it has become


async def test_what_is_unread_is_told_alike_by_one_who_has_counted_before_and_one_who_has_not(open_store: Open) -> None:
    store = await open_store()
    thread_id = await opened_thread(store, AGENT, OTHER, "third")
    await say(store, thread_id, AGENT, MANY)
    expected = {AGENT: 0, OTHER: 1000, "third": 1000}

    async def told() -> list[dict[str, int]]:
        return [await unread(store, thread_id), await unread(store, thread_id), await unread(await open_store(), thread_id)]

    assert await told() == [expected] * 3
    await say(store, thread_id, OTHER, 5, to=AGENT)
    await say(store, thread_id, "third", 2)
    expected[AGENT] = 7
    assert await told() == [expected] * 3
    await have_read(store, thread_id, AGENT, MANY + 4)
    await have_read(store, thread_id, OTHER, MANY - 10)
    expected |= {AGENT: 3, OTHER: 12}
    assert await told() == [expected] * 3
    await say(store, thread_id, OTHER, MANY)
    expected[AGENT] = 1000
    assert await told() == [expected] * 3
    await have_read(store, thread_id, AGENT, 2 * MANY + 7)
    expected[AGENT] = 0
    assert await told() == [expected] * 3


async def test_nothing_that_was_counted_outlives_its_messages(store: Store) -> None:
    thread_id = await opened_thread(store, AGENT, OTHER)
    await say(store, thread_id, OTHER, MANY)
    assert (await unread(store, thread_id))[AGENT] == 1000
    going = Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=AGENT, removes=True)
    await store.change(going, lambda facts: Change(removed=True, audit=(note(facts.now, "expire_thread"),)))
    again = Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=AGENT)
    await store.change(again, opening(thread_id, AGENT, OTHER))
    await say(store, thread_id, OTHER, 2)
    assert (await unread(store, thread_id))[AGENT] == 2
