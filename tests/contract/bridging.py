"""Plain plans for the bridge's store: what the rules do, without their rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import uuid4

from orchestration.bridge.caller import Role
from orchestration.bridge.port import Store
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Ask, AuditNote, Change, Facts, Member, Plan, Post, Progress, ThreadRow
from orchestration.bridge.wire import Message, MessageKind, MessagePosted, ThreadStatus, ThreadType

WORKSPACE = "kloros"
AGENT = "executioner"
DEADLINE = 30.0
"""Seconds after which what a test waits for does not come."""


def new_id(kind: str = "thr") -> str:
    return f"{kind}_{uuid4().hex}"


def note(at: datetime, operation: str, thread_id: str | None = None, *, workspace_id: str = WORKSPACE) -> AuditNote:
    return AuditNote(
        at=at,
        workspace_id=workspace_id,
        actor=AGENT,
        role=Role.PARTICIPANT,
        request_id="r-1",
        operation=operation,
        thread_id=thread_id,
        after={"by": AGENT},
    )


def opening(thread_id: str, *agents: str, workspace_id: str = WORKSPACE, title: str = "A thread") -> Plan[str]:
    def plan(facts: Facts) -> Change[str]:
        thread = ThreadRow(
            thread_id=thread_id,
            workspace_id=workspace_id,
            title=title,
            type=ThreadType.WORKFLOW,
            status=ThreadStatus.ACTIVE,
            created_by=AGENT,
            created_at=facts.now,
            updated_at=facts.now,
        )
        joined = tuple(Member(agent_id=agent, role=Role.PARTICIPANT, joined_at=facts.now) for agent in agents)
        audit = (note(facts.now, "create_thread", thread_id, workspace_id=workspace_id),)
        return Change(answer=thread_id, created=thread, joined=joined, audit=audit)

    return plan


def posting(body: str, *, sender: str = AGENT, key: str | None = None, digest: str = "d") -> Plan[MessagePosted]:
    def plan(facts: Facts) -> Change[MessagePosted]:
        thread, known = facts.thread, facts.remembered
        if thread is None:
            refusal = Refused(Code.NOT_FOUND, "no such thread", rule="thread.known")
            return Change(refusal=refusal, audit=(note(facts.now, "post_message"),))
        if known is not None:
            if known.payload_sha256 != digest:
                raise Refused(Code.IDEMPOTENCY_CONFLICT, "another payload", rule="message.repeat")
            return Change(
                answer=MessagePosted(
                    message_id=known.message_id,
                    seq=known.seq,
                    thread_status=known.thread_status,
                    created_at=known.created_at,
                )
            )
        message = Message(
            message_id=new_id("msg"),
            thread_id=thread.thread_id,
            seq=facts.next_seq,
            sender=sender,
            kind=MessageKind.CHAT,
            body=body,
            metadata={"n": 1},
            created_at=facts.now,
        )
        answer = MessagePosted(
            message_id=message.message_id, seq=message.seq, thread_status=thread.status, created_at=facts.now
        )
        post = Post(message=message, thread_status=thread.status, idempotency_key=key, payload_sha256=digest)
        progress = Progress(turns=thread.progress.turns + 1, last_sender=sender)
        return Change(
            answer=answer, posts=(post,), progress=progress, audit=(note(facts.now, "post_message", thread.thread_id),)
        )

    return plan


async def opened_thread(store: Store, *agents: str, workspace_id: str = WORKSPACE, title: str = "A thread") -> str:
    thread_id = new_id()
    plan = opening(thread_id, *(agents or (AGENT, "reviewer")), workspace_id=workspace_id, title=title)
    return await store.change(Ask(workspace_id=workspace_id, thread_id=thread_id, agent_id=AGENT), plan)


async def post(
    store: Store, thread_id: str, body: str, *, sender: str = AGENT, key: str | None = None, digest: str = "d"
) -> MessagePosted:
    ask = Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=sender, idempotency_key=key)
    return await store.change(ask, posting(body, sender=sender, key=key, digest=digest))


async def posted_surely(store: Callable[[], Store], thread_id: str, name: str, number: int) -> MessagePosted:
    """Post under a key of its own until it is acknowledged, each time to the store that there is by then."""
    while True:
        try:
            return await post(store(), thread_id, f"{name} {number}", sender=name, key=f"{number}", digest=f"{number}")
        except Refused as refused:
            if refused.code != Code.UNAVAILABLE:
                raise
            await asyncio.sleep(0.01)


async def until(so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(DEADLINE):
        while not so():
            await asyncio.sleep(0.001)


async def answers(asked: list[asyncio.Task[Any]]) -> list[Any]:
    """Return what became of all that was asked: answers, and what was raised."""
    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(*asked, return_exceptions=True)
