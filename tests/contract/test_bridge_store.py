"""What every store of the bridge must do, whatever its engine."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from pydantic import TypeAdapter

from orchestration.bridge.caller import Role
from orchestration.bridge.http.measures import FIGURES
from orchestration.bridge.port import Store
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import (
    Ask,
    Change,
    Facts,
    Finding,
    Member,
    Plan,
    Progress,
    Revocation,
    Session,
    Trigger,
)
from orchestration.bridge.wire import (
    AuditEntry,
    ManagementMode,
    Message,
    MessagePosted,
    SessionStatus,
    ThreadStatus,
    ThreadType,
)
from tests.contract.bridging import AGENT, WORKSPACE, new_id, note, opened_thread, opening, post, posting
from tests.contract.conftest import Open

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


def asked(thread_id: str | None, **more: Any) -> Ask:
    return Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=AGENT, **more)


async def facts_of(store: Store, ask: Ask) -> Facts:
    def plan(facts: Facts) -> Change[Facts]:
        return Change(answer=facts)

    return await store.change(ask, plan)


def refusing(thread_id: str) -> Plan[None]:
    refused = Refused(Code.FORBIDDEN, "no", rule="test")
    return lambda facts: Change(
        refusal=refused, audit=(note(facts.now, "nothing", thread_id)._replace(outcome="FORBIDDEN"),)
    )


def beating(session: Session) -> Plan[None]:
    return lambda facts: Change(session=session)


async def seqs(store: Store, thread_id: str) -> list[int]:
    return [message.seq for message in (await store.read(thread_id, reader="", since_seq=0, limit=10_000)).messages]


async def test_a_thread_is_there_with_everything_that_was_said_of_it(open_store: Open) -> None:
    store = await open_store(clock=lambda: NOON)
    thread_id = await opened_thread(store, "executioner", "reviewer", title="Rückfrage ✓")
    found = await store.thread(thread_id)
    assert found is not None
    assert (found.workspace_id, found.title, found.type) == (WORKSPACE, "Rückfrage ✓", ThreadType.WORKFLOW)
    assert (found.status, found.last_seq, found.created_by) == (ThreadStatus.ACTIVE, 0, AGENT)
    assert found.created_at == found.updated_at == NOON
    assert [(p.agent_id, p.role, p.joined_at, p.unread) for p in await store.participants(thread_id)] == [
        ("executioner", Role.PARTICIPANT, NOON, 0),
        ("reviewer", Role.PARTICIPANT, NOON, 0),
    ]
    assert await store.thread(new_id()) is None
    assert await store.participants(new_id()) == ()


async def test_messages_are_read_in_order_from_where_one_stands(open_store: Open) -> None:
    store = await open_store(clock=lambda: NOON)
    thread_id = await opened_thread(store)
    answers = [await post(store, thread_id, f"message {n}\n'%s' (\"\\\"), ✓") for n in range(5)]
    assert [answer.seq for answer in answers] == [1, 2, 3, 4, 5]
    reading = await store.read(thread_id, reader="reviewer", since_seq=2, limit=2)
    assert reading.thread is not None
    assert reading.thread.last_seq == 5
    assert reading.member is not None
    assert reading.member.agent_id == "reviewer"
    assert [(m.seq, m.body, m.message_id) for m in reading.messages] == [
        (3, "message 2\n'%s' (\"\\\"), ✓", answers[2].message_id),
        (4, "message 3\n'%s' (\"\\\"), ✓", answers[3].message_id),
    ]
    first = reading.messages[0]
    assert (first.sender, first.metadata, first.created_at, first.to, first.traceparent) == (AGENT, {"n": 1}, NOON, None, "")
    assert first == type(first).model_validate(first.model_dump())
    stranger = await store.read(thread_id, reader="stranger", since_seq=0, limit=1)
    assert stranger.member is None
    assert len(stranger.messages) == 1
    nowhere = await store.read(new_id(), reader=AGENT, since_seq=0, limit=1)
    assert (nowhere.thread, nowhere.member, nowhere.messages) == (None, None, ())


async def test_reading_as_text_tells_the_same(open_store: Open) -> None:
    now = NOON
    store = await open_store(clock=lambda: now)
    thread_id = await opened_thread(store)
    for body in ("plain", "C:\\", '"quoted"\n\t\\ ✓ </script> \u2028', ""):
        now += timedelta(seconds=1)
        await post(store, thread_id, body)
    for since, limit in ((0, 9), (1, 1), (4, 9)):
        reading = await store.read(thread_id, reader="reviewer", since_seq=since, limit=limit)
        text = await store.read_text(thread_id, reader="reviewer", since_seq=since, limit=limit)
        assert (text.thread, text.member) == (reading.thread, reading.member)
        assert TypeAdapter(tuple[Message, ...]).validate_json(text.messages) == reading.messages
        assert text.next_seq == (reading.messages[-1].seq if reading.messages else since)
    nowhere = await store.read_text(new_id(), reader="", since_seq=0, limit=1)
    assert (nowhere.thread, nowhere.member, nowhere.messages, nowhere.next_seq) == (None, None, b"[]", 0)


async def test_a_repeated_key_is_remembered_for_its_sender(open_store: Open) -> None:
    store = await open_store()
    thread_id = await opened_thread(store)
    first = await post(store, thread_id, "once", key="k")
    await post(store, thread_id, "another")
    assert await post(store, thread_id, "once", key="k") == first
    assert await post(await open_store(), thread_id, "once", key="k") == first
    with pytest.raises(Refused) as refused:
        await post(store, thread_id, "something else", key="k", digest="e")
    assert refused.value.code == Code.IDEMPOTENCY_CONFLICT
    assert (await post(store, thread_id, "once", key="k", sender="reviewer")).seq == 3
    assert await seqs(store, thread_id) == [1, 2, 3]


async def test_repeats_that_wait_together_are_one_message(store: Store) -> None:
    thread_id = await opened_thread(store)
    answers = await asyncio.gather(*(post(store, thread_id, "once", key="k") for _ in range(20)))
    assert len({answer.message_id for answer in answers}) == 1
    assert await seqs(store, thread_id) == [1]


async def test_a_refusal_is_on_record_before_it_is_told(store: Store) -> None:
    thread_id = await opened_thread(store)
    with pytest.raises(Refused) as refused:
        await store.change(asked(thread_id), refusing(thread_id))
    assert refused.value.code == Code.FORBIDDEN
    assert [entry.outcome for entry in await store.audit(workspace_id=WORKSPACE, thread_id=thread_id)] == [
        "done",
        "FORBIDDEN",
    ]


async def test_a_plan_that_raises_leaves_nothing_and_its_neighbours_alone(store: Store) -> None:
    thread_id = await opened_thread(store)

    def broken(facts: Facts) -> Change[None]:
        raise ZeroDivisionError

    def skipping(facts: Facts) -> Change[MessagePosted]:
        change = posting("skips a number")(facts)
        late = change.posts[0].message.model_copy(update={"seq": facts.next_seq + 1})
        return change._replace(posts=(change.posts[0]._replace(message=late),))

    plans: list[Plan[Any]] = [posting("a"), broken, posting("b"), refusing(thread_id), skipping, posting("c")]
    results = await asyncio.gather(*(store.change(asked(thread_id), plan) for plan in plans), return_exceptions=True)
    assert [type(result).__name__ for result in results] == [
        "MessagePosted", "ZeroDivisionError", "MessagePosted", "Refused", "Defect", "MessagePosted",
    ]  # fmt: skip
    assert await seqs(store, thread_id) == [1, 2, 3]
    assert not (await store.verify()).faults


async def test_what_no_database_can_keep_fails_alone(store: Store) -> None:
    thread_id = await opened_thread(store)
    bodies = ["one", "a lone surrogate \ud800", "two"]
    results = await asyncio.gather(*(post(store, thread_id, body) for body in bodies), return_exceptions=True)
    assert isinstance(results[1], Exception)
    assert [message.body for message in (await store.read(thread_id, reader="", since_seq=0, limit=9)).messages] == [
        "one",
        "two",
    ]
    assert not (await store.verify()).faults


async def test_long_messages_that_wait_together_are_all_kept(store: Store) -> None:
    """More at once than a socket takes."""
    thread_id, body = await opened_thread(store), "long 'and' \\ quoted " * 3000
    await asyncio.gather(*(post(store, thread_id, f"{number} {body}") for number in range(40)))
    messages = (await store.read(thread_id, reader="", since_seq=0, limit=99)).messages
    assert [message.body for message in messages] == [f"{number} {body}" for number in range(40)]


async def test_another_workspace_s_thread_is_not_shown(store: Store) -> None:
    thread_id = await opened_thread(store, workspace_id="elsewhere")
    facts = await facts_of(store, asked(thread_id))
    assert (facts.thread, facts.elsewhere, dict(facts.members)) == (None, True, {})
    unknown = await facts_of(store, asked(new_id()))
    assert (unknown.thread, unknown.elsewhere) == (None, False)
    operator = await facts_of(store, Ask(workspace_id=None, thread_id=thread_id))
    assert operator.thread is not None
    assert operator.thread.workspace_id == "elsewhere"
    with pytest.raises(Refused):
        await post(store, thread_id, "over the fence")
    assert await seqs(store, thread_id) == []
    assert [entry.operation for entry in await store.audit(workspace_id=WORKSPACE)] == ["post_message"]
    assert not (await store.verify()).faults


async def test_a_plan_knows_what_its_ask_names_and_no_more(open_store: Open) -> None:
    now = NOON
    store = await open_store(clock=lambda: now)
    thread_id, other_id = await opened_thread(store, AGENT, "reviewer"), await opened_thread(store)
    first = await post(store, thread_id, "a", key="k")
    elsewhere = await post(store, other_id, "b")
    finding = Finding(finding_id="F-1", state="finding_reported", reports=1, message_id=first.message_id, reported_by=AGENT)
    session = Session(
        workspace_id=WORKSPACE,
        agent_id=AGENT,
        session_id="s-1",
        runtime="codex",
        management_mode=ManagementMode.MANAGED,
        resumable=True,
        status=SessionStatus.IDLE,
        heartbeat_at=NOON,
    )
    await store.change(asked(thread_id), lambda facts: Change(findings=(finding,), session=session))
    ask = asked(thread_id, idempotency_key="k", finding_id="F-1", replies_to=first.message_id, session_id="s-1")
    facts = await facts_of(store, ask)
    assert facts.thread is not None
    assert (facts.thread.last_seq, facts.next_seq) == (1, 2)
    assert facts.thread.rate.within(NOON) == 1
    assert facts.rate.within(NOON) == 2
    assert set(facts.members) == {AGENT, "reviewer"}
    assert facts.remembered is not None
    assert facts.remembered.message_id == first.message_id
    assert (facts.finding, facts.session, facts.replied_to) == (finding, session, True)
    less = await facts_of(store, asked(thread_id, replies_to=elsewhere.message_id))
    assert (less.remembered, less.finding, less.session, less.replied_to) == (None, None, None, False)


async def test_a_message_and_its_trace_in_the_audit_are_kept_each_as_it_is(open_store: Open) -> None:
    store = await open_store(clock=lambda: NOON)
    thread_id = await opened_thread(store)
    await post(store, thread_id, "new")
    written = NOON - timedelta(days=1)

    def older(facts: Facts) -> Change[MessagePosted]:
        change = posting("old")(facts)
        (of_now,) = change.posts
        return change._replace(posts=(of_now._replace(message=of_now.message.model_copy(update={"created_at": written})),))

    await store.change(asked(thread_id), older)
    await store.change(
        asked(thread_id), lambda facts: posting("c")(facts)._replace(audit=(note(facts.now, "of no thread"),))
    )
    reading = await store.read(thread_id, reader=AGENT, since_seq=0, limit=9)
    assert [(message.body, message.created_at) for message in reading.messages] == [
        ("new", NOON),
        ("old", written),
        ("c", NOON),
    ]
    trace = await store.audit(workspace_id=WORKSPACE)
    assert [entry.thread_id for entry in trace] == [thread_id] * 3 + [None]
    assert {entry.at for entry in trace} == {NOON}
    assert not (await store.verify()).faults


async def test_posts_are_counted_by_the_minute_and_the_one_before(open_store: Open) -> None:
    now = NOON
    store = await open_store(clock=lambda: now)
    thread_id = await opened_thread(store)
    counts = []
    for minute in (0, 0, 1, 1, 3, 2):
        now = NOON + timedelta(minutes=minute)
        await post(store, thread_id, "a")
        rate = (await facts_of(await open_store(), asked(thread_id))).rate
        counts.append((rate.minute - int(NOON.timestamp()) // 60, rate.posts, rate.before))
    assert counts == [(0, 1, 0), (0, 2, 0), (1, 1, 2), (1, 2, 2), (3, 1, 0), (3, 2, 0)]


@pytest.mark.parametrize("from_anew", [False, True])
async def test_changes_last(open_store: Open, from_anew: bool) -> None:
    now = NOON
    store = await open_store(clock=lambda: now)
    thread_id = await opened_thread(store, AGENT, "reviewer")
    await post(store, thread_id, "to be read")
    now += timedelta(seconds=5)
    third = Member(agent_id="third", role=Role.PARTICIPANT, joined_at=now)
    progress = Progress(turns=7, last_sender="x", event_types=frozenset({"fix_pushed", "b"}))
    trigger = Trigger(
        trigger_id=new_id("trg"),
        thread_id=thread_id,
        target="reviewer",
        reason="r",
        prompt="p",
        requested_by=AGENT,
        created_at=now,
    )
    revocation = Revocation(token_id="t-1", expires_at=now + timedelta(hours=1), revoked_at=now, revoked_by=AGENT)
    blocked = (ThreadStatus.BLOCKED, "too many turns")
    change = Change[None](
        status=blocked, joined=(third,), left=("reviewer",), read=(AGENT, 1), progress=progress, trigger=trigger,
        revocation=revocation, audit=(note(now, "all", thread_id),),
    )  # fmt: skip
    await store.change(asked(thread_id), lambda facts: change)
    if from_anew:
        store = await open_store(clock=lambda: now)
    facts = await facts_of(store, asked(thread_id))
    assert facts.thread is not None
    assert (facts.thread.status, facts.thread.status_reason, facts.thread.progress) == (*blocked, progress)
    assert (facts.thread.created_at, facts.thread.updated_at) == (NOON, now)
    assert set(facts.members) == {AGENT, "third"}
    assert {p.agent_id: (p.last_read_seq, p.unread) for p in await store.participants(thread_id)} == {
        AGENT: (1, 0),
        "third": (0, 1),
    }
    assert await store.triggers(thread_id) == (trigger,)
    assert await store.revoked(now) == {"t-1"}
    assert await store.revoked(now + timedelta(hours=2)) == frozenset()


async def test_a_participant_tells_its_newest_heartbeat(store: Store) -> None:
    thread_id = await opened_thread(store, AGENT, "reviewer")
    old = Session(
        workspace_id=WORKSPACE,
        agent_id=AGENT,
        session_id="s-1",
        runtime="codex",
        management_mode=ManagementMode.UNMANAGED,
        resumable=False,
        status=SessionStatus.OFFLINE,
        heartbeat_at=NOON,
    )
    new = replace(old, session_id="s-2", status=SessionStatus.ACTIVE, heartbeat_at=NOON + timedelta(minutes=1))
    for session in (new, old, replace(new, workspace_id="elsewhere", heartbeat_at=NOON + timedelta(hours=1))):
        await store.change(Ask(workspace_id=session.workspace_id), beating(session))
    mine, reviewer = await store.participants(thread_id)
    assert (mine.last_heartbeat_at, mine.session_status) == (new.heartbeat_at, SessionStatus.ACTIVE)
    assert (reviewer.last_heartbeat_at, reviewer.session_status) == (None, None)
    assert await store.sessions(WORKSPACE, AGENT) == (new, old)
    assert await store.sessions(WORKSPACE, "reviewer") == ()


async def test_threads_are_listed_by_falling_id_a_page_at_a_time(store: Store) -> None:
    ids = sorted([await opened_thread(store, AGENT) for _ in range(3)], reverse=True)
    alone = await opened_thread(store, "reviewer")
    await opened_thread(store, workspace_id="elsewhere")
    await post(store, ids[1], "news", sender="reviewer")
    await store.change(asked(ids[2]), lambda facts: Change(status=(ThreadStatus.CLOSED, "")))
    mine = await store.threads(workspace_id=WORKSPACE, participant=AGENT, reader=AGENT)
    assert [(t.thread_id, t.unread, t.last_seq) for t in mine] == [(ids[0], 0, 0), (ids[1], 1, 1), (ids[2], 0, 0)]
    assert [t.thread_id for t in await store.threads(workspace_id=WORKSPACE, participant=AGENT, limit=2)] == ids[:2]
    assert [t.thread_id for t in await store.threads(workspace_id=WORKSPACE, participant=AGENT, after=ids[1])] == ids[2:]
    assert [t.thread_id for t in await store.threads(workspace_id=WORKSPACE, status=ThreadStatus.CLOSED)] == [ids[2]]
    assert {t.thread_id for t in await store.threads(workspace_id=WORKSPACE)} == {*ids, alone}
    assert len(await store.threads(workspace_id=None)) == 5


async def test_search_finds_messages_with_all_words(open_store: Open) -> None:
    now = NOON
    store = await open_store(clock=lambda: now)
    thread_id, other_id = await opened_thread(store, AGENT, "reviewer"), await opened_thread(store, "reviewer")
    fence = await opened_thread(store, workspace_id="elsewhere")
    for number, (where, body) in enumerate(
        [
            (thread_id, "Retry-Backoff: ÄRGER with `foo_bar`"),
            (thread_id, "retry only"),
            (other_id, "backoff & retry' \" : * again"),
        ]
    ):
        now = NOON + timedelta(seconds=number)
        await post(store, where, body)
    ask = Ask(workspace_id="elsewhere", thread_id=fence, agent_id=AGENT)
    await store.change(ask, posting("retry backoff"))

    async def found(query: str, *, thread_id: str | None = None, participant: str | None = None) -> list[str]:
        some = await store.search(query, workspace_id=WORKSPACE, thread_id=thread_id, participant=participant)
        return [message.body[:5] for message in some]

    assert await found("retry") == ["backo", "retry", "Retry"]
    assert await found("RETRY backoff") == ["backo", "Retry"]
    assert await found("ärger foo") == ["Retry"]
    assert await found("retry", thread_id=thread_id) == ["retry", "Retry"]
    assert await found("retry", participant=AGENT) == ["retry", "Retry"]
    assert await found("ret") == await found("'\"*& | :") == await found("AND OR NOT") == []


async def test_findings_come_with_the_words_that_reported_them(store: Store) -> None:
    thread_id = await opened_thread(store)
    posted = [await post(store, thread_id, f"finding {n}") for n in range(2)]
    findings = tuple(
        Finding(finding_id=name, state="finding_reported", reports=1, message_id=answer.message_id, reported_by=AGENT)
        for name, answer in zip(("F-2", "F-1"), posted, strict=True)
    )
    await store.change(asked(thread_id), lambda facts: Change(findings=findings))
    fixed = replace(findings[0], state="fix_pushed", reports=2)
    await store.change(asked(thread_id), lambda facts: Change(findings=(fixed,)))
    found = await store.findings(thread_id)
    assert [(f.finding, f.body) for f in found] == [(fixed, "finding 0"), (findings[1], "finding 1")]


async def test_a_waiter_hears_of_a_post_here_and_elsewhere(open_store: Open) -> None:
    store, elsewhere = await open_store(), await open_store()
    thread_id = await opened_thread(store)
    for seq, poster in enumerate((store, elsewhere), 1):
        waiting = asyncio.ensure_future(store.wait_for_news(thread_id, since_seq=seq - 1, seconds=20))
        while not store.figures()["waiters"]:
            await asyncio.sleep(0)
        await post(poster, thread_id, "news")
        assert await waiting
    assert await store.wait_for_news(thread_id, since_seq=1, seconds=0)
    assert not await store.wait_for_news(thread_id, since_seq=2, seconds=0.01)
    assert store.figures()["waiters"] == 0


async def test_two_processes_share_a_thread_without_gaps(open_store: Open) -> None:
    stores = [await open_store(), await open_store()]
    thread_id = await opened_thread(stores[0])

    async def write(number: int) -> list[int]:
        return [(await post(stores[number % 2], thread_id, "x", sender=f"a{number}")).seq for _ in range(10)]

    told = await asyncio.gather(*map(write, range(8)))
    assert sorted(seq for some in told for seq in some) == list(range(1, 81))
    assert all(some == sorted(some) for some in told)
    assert await seqs(stores[0], thread_id) == list(range(1, 81))
    assert not (await stores[0].verify()).faults


async def test_what_another_process_has_changed_is_known_at_once(open_store: Open) -> None:
    store, elsewhere = await open_store(), await open_store()
    thread_id = await opened_thread(store)
    await post(store, thread_id, "a")
    await post(store, thread_id, "b")
    await elsewhere.change(asked(thread_id), lambda facts: Change(status=(ThreadStatus.BLOCKED, "there")))
    seen = (await facts_of(store, asked(thread_id))).thread
    assert seen is not None
    assert seen.status == ThreadStatus.BLOCKED
    await post(store, thread_id, "c")
    await elsewhere.change(asked(thread_id), lambda facts: Change(status=(ThreadStatus.CLOSED, "there"), left=("reviewer",)))
    assert (await post(store, thread_id, "d")).thread_status == ThreadStatus.CLOSED
    kept = await store.thread(thread_id)
    assert kept is not None
    assert (kept.status, kept.status_reason, kept.last_seq) == (ThreadStatus.CLOSED, "there", 4)
    assert [p.agent_id for p in await store.participants(thread_id)] == [AGENT]


async def test_every_figure_of_a_store_has_its_words_in_the_metrics(store: Store) -> None:
    """One without them would take all of /metrics with it."""
    assert store.figures().keys() <= {name.removeprefix("store_") for name in FIGURES}


async def test_the_end_of_the_audit_is_read_without_what_stands_before_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its beginning may be a million entries away, and a page of it keeps writers waiting."""
    first, second = await opened_thread(store), await opened_thread(store)
    for text in ("a", "b"):
        await post(store, first, text)
    whole = await store.audit(workspace_id=None)
    of_first = await store.audit(workspace_id=WORKSPACE, thread_id=first)
    monkeypatch.setattr(store, "audit", None)
    assert await store.latest_audit(workspace_id=None, limit=3) == whole[-3:]
    assert await store.latest_audit(workspace_id=WORKSPACE, limit=9) == whole
    assert await store.latest_audit(workspace_id="elsewhere", limit=9) == ()
    assert await store.latest_audit(workspace_id=WORKSPACE, thread_id=first, limit=2) == of_first[-2:]
    assert len(await store.latest_audit(workspace_id=None, thread_id=second, limit=9)) == 1


async def test_the_audit_is_read_page_by_page(store: Store) -> None:
    ids = [await opened_thread(store) for _ in range(3)]
    await asyncio.gather(*(post(store, thread_id, "x") for thread_id in ids for _ in range(5)))
    await opened_thread(store, workspace_id="elsewhere")
    entries: list[AuditEntry] = []
    after = 0
    while page := await store.audit(workspace_id=WORKSPACE, after=after, limit=4):
        entries += page
        after = page[-1].entry
    assert len(entries) == 18
    assert len({entry.entry for entry in entries}) == 18
    one = await store.audit(workspace_id=WORKSPACE, thread_id=ids[0])
    assert [entry.operation for entry in one] == ["create_thread"] + ["post_message"] * 5
    assert (one[0].actor, one[0].role, one[0].request_id) == (AGENT, Role.PARTICIPANT, "r-1")
    assert (one[0].before, one[0].after) == (None, {"by": AGENT})
    assert [e.entry for e in await store.audit(workspace_id=WORKSPACE, thread_id=ids[0], after=one[3].entry)] == [
        entry.entry for entry in one[4:]
    ]
    assert await store.audit(workspace_id=WORKSPACE, thread_id=new_id()) == ()
    assert len(await store.audit(workspace_id=None)) == 19


@pytest.mark.parametrize(
    ("tampering", "links"),
    [
        ("UPDATE bridge_audit SET actor = 'somebody' WHERE link = 2", {2}),
        ("UPDATE bridge_audit SET state_after = NULL WHERE link = 3", {3}),
        ("DELETE FROM bridge_audit WHERE link = 2", {3}),
        ("DELETE FROM bridge_audit WHERE link = 4", {3}),
        ("DELETE FROM bridge_audit WHERE link > 1 AND chain LIKE 'thr%'", {1}),
        ("DELETE FROM bridge_audit WHERE chain LIKE 'workspace:%'", {0}),
        ("UPDATE bridge_audit SET chain = 'x' WHERE link = 4", {3, 4}),
    ],
)
async def test_tampering_with_the_audit_shows(store: Store, place: str, tampering: str, links: set[int]) -> None:
    thread_id = await opened_thread(store)
    for n in range(3):
        await post(store, thread_id, f"{n}")
    with pytest.raises(Refused):
        await post(store, new_id(), "nowhere")
    whole = await store.verify()
    assert (whole.chains, whole.entries, whole.faults) == (2, 5, ())
    if "://" in place:
        with psycopg.connect(place, autocommit=True) as tampered:
            tampered.execute(tampering.encode())
    else:
        with sqlite3.connect(place) as tampering_connection:
            tampering_connection.execute(tampering)
        tampering_connection.close()
    assert {fault.link for fault in (await store.verify()).faults} == links


async def test_a_thread_is_made_once(store: Store) -> None:
    thread_id = await opened_thread(store)
    results = await asyncio.gather(
        *(store.change(asked(thread_id), opening(thread_id, "thief")) for _ in range(2)), return_exceptions=True
    )
    assert all(isinstance(result, Exception) for result in results)
    assert "thief" not in {p.agent_id for p in await store.participants(thread_id)}


async def test_tables_of_a_newer_release_are_noticed(store: Store, place: str) -> None:
    if "://" in place:
        with psycopg.connect(place, autocommit=True) as migrated:
            migrated.execute(b"INSERT INTO kloros_schema (version) VALUES (99)")
    else:
        migrated_connection = sqlite3.connect(place)
        migrated_connection.execute("PRAGMA user_version = 99")
        migrated_connection.close()
    with pytest.raises(Refused) as refused:
        await store.check()
    assert refused.value.rule == "store.outdated"


async def test_it_answers_and_counts(store: Store) -> None:
    await store.check()
    before = store.figures()
    await opened_thread(store)
    after = store.figures()
    assert (after["changes"] - before["changes"], after["commits"] - before["commits"]) == (1, 1)
    assert after["waiting_changes"] == 0


async def test_changes_that_come_together_share_commits(store: Store) -> None:
    thread_id = await opened_thread(store)
    for often in range(2):
        before = store.figures()
        posts = (post(store, thread_id, f"{often} {number}", key=f"{often} {number}") for number in range(32))
        answers = await asyncio.gather(*posts)
        after = store.figures()
        assert [answer.seq for answer in answers] == list(range(32 * often + 1, 32 * often + 33))
        assert after["changes"] - before["changes"] == 32
        assert after["commits"] - before["commits"] <= 2  # the first alone, or two halves
