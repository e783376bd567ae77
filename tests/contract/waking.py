"""Wake stores for tests, and what they are about: threads with something to read, triggers, attempts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from orchestration.bridge.port import Store
from orchestration.bridge.state import Ask, Change, Facts, Post, Trigger
from orchestration.bridge.store.lookups import utc_now
from orchestration.bridge.store.postgres_wakes import PostgresWakes
from orchestration.bridge.store.sqlite_wakes import SqliteWakes
from orchestration.bridge.wake.state import Attempt, Claim, Wake, Way
from orchestration.bridge.wake.trigger import SUPERVISOR
from orchestration.bridge.wire import Message, MessageKind
from tests.contract.bridging import AGENT, WORKSPACE, new_id, note

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
LEASE = timedelta(seconds=30)
REVIEWER = "reviewer"


async def wakes_at(place: str, *, clock: Callable[[], datetime] = utc_now) -> SqliteWakes | PostgresWakes:
    """Open the wake store at a place."""
    return await PostgresWakes.opened(place, clock=clock) if "://" in place else SqliteWakes(place, clock=clock)


async def asked_for(
    store: Store, thread_id: str, target: str = REVIEWER, *, prompt: str = "", at: datetime = NOON, trigger_id: str = ""
) -> str:
    """Have a trigger asked for as `trigger_participant` does; returns its id."""
    trigger_id = trigger_id or new_id("trg")

    def plan(facts: Facts) -> Change[None]:
        trigger = Trigger(
            trigger_id=trigger_id,
            thread_id=thread_id,
            target=target,
            reason="look",
            prompt=prompt,
            requested_by=AGENT,
            created_at=at,
            traceparent="00-trace",
        )
        return Change(trigger=trigger, audit=(note(facts.now, "trigger_participant", thread_id),))

    await store.change(Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=AGENT), plan)
    return trigger_id


async def told(store: Store, thread_id: str, *, sender: str = AGENT, to: str | None = None, system: bool = False) -> None:
    """Post a message to somebody, or as the bridge does."""

    def plan(facts: Facts) -> Change[None]:
        message = Message(
            message_id=new_id("msg"),
            thread_id=thread_id,
            seq=facts.next_seq,
            sender=sender,
            kind=MessageKind.SYSTEM if system else MessageKind.CHAT,
            body="x",
            metadata={},
            to=to,
            created_at=facts.now,
        )
        assert facts.thread is not None
        post = Post(message=message, thread_status=facts.thread.status, payload_sha256="d")
        return Change(posts=(post,), audit=(note(facts.now, "post_message", thread_id),))

    await store.change(Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=sender), plan)


async def acknowledged(store: Store, thread_id: str, agent_id: str, seq: int) -> None:
    """Put a cursor forward."""
    ask = Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=agent_id)
    await store.change(ask, lambda facts: Change(read=(agent_id, seq), audit=(note(facts.now, "ack_read", thread_id),)))


def made_of_unread(thread_id: str, *, agent_id: str = REVIEWER, at: datetime = NOON) -> Wake:
    """Give a trigger as a supervisor makes one."""
    return Wake(
        trigger_id=new_id("trg"),
        workspace_id=WORKSPACE,
        thread_id=thread_id,
        agent_id=agent_id,
        reason="2 unread",
        prompt="",
        requested_by=SUPERVISOR,
        created_at=at,
        due_at=at,
    )


def attempt(claim: Claim, number: int = 1, *, way: Way = Way.LIVE, at: datetime = NOON, session_id: str = "s-1") -> Attempt:
    """Give an attempt that is about to be made."""
    return Attempt(
        number=number, way=way, session_id=session_id, holder=claim.holder, fence=claim.fence, began_at=at, cursor=3
    )
