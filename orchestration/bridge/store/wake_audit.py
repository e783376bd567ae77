"""A wake store's steps that make, end or steer a trigger.

The thread's row is locked before, and the line in its chain of audit is written in the same transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from orchestration.bridge.caller import GUARD, Role
from orchestration.bridge.state import Ask, AuditNote, Change, Facts, Post, Snapshot, Trigger
from orchestration.bridge.store import rows, wake_rows
from orchestration.bridge.store.batch import Batch, Loaded, settle
from orchestration.bridge.store.wake_claims import held
from orchestration.bridge.store.wake_steps import Known, Lost, Steps, Written, ask, server_time
from orchestration.bridge.thread import OPEN_FOR_POSTS
from orchestration.bridge.wake.state import Attempt, Claim, Code, Outcome, Status, Wake
from orchestration.bridge.wake.trigger import Event, after
from orchestration.bridge.wire import Message, MessageKind

SUPERVISOR: Final = "kloros:supervisor"
"""Who acts, in the audit, when no person does."""
UNDELIVERED: Final = "wake_failed"
"""The type of the event that a dead letter leaves in its thread."""
_FORGET_SILENT: Final = timedelta(days=90)
"""Each new session leaves a row, and every look at an agent reads them all; `[wake] resume_within` is hours."""


def queued(wake: Wake, at: datetime) -> Steps[bool]:
    """Make a trigger, unless its thread is gone or the agent has an open one there."""
    loaded = yield Known(Ask(workspace_id=None, thread_id=wake.thread_id))
    if wake.thread_id not in loaded.threads:
        return False
    if (yield from ask("wakes.open_of_case", thread_id=wake.thread_id, agent_id=wake.agent_id)):
        return False
    trigger = Trigger(
        trigger_id=wake.trigger_id,
        thread_id=wake.thread_id,
        target=wake.agent_id,
        reason=wake.reason,
        prompt=wake.prompt,
        requested_by=wake.requested_by,
        created_at=wake.created_at,
        traceparent=wake.traceparent,
    )
    told = {"trigger_id": wake.trigger_id, "target": wake.agent_id, "status": Status.QUEUED.value}
    note = _Note("queue_trigger", wake.trigger_id, after=told)
    yield from _audited(loaded, wake.thread_id, note, at, trigger=trigger)
    if wake.renewed_at is not None:
        at_then = rows.text(wake.renewed_at)
        yield from ask("wakes.renew_state", trigger_id=wake.trigger_id, at=at_then, forced=int(wake.forced))
    elif wake.due_at != wake.created_at or wake.forced:
        at_then, forced = rows.text(wake.due_at), int(wake.forced)
        yield from ask("wakes.hurry", trigger_id=wake.trigger_id, at=at_then, forced=forced)
    return True


class Ending(NamedTuple):
    """How a trigger ends, and what its thread is told."""

    status: Status
    outcome: Outcome
    code: Code | None
    detail: str
    bounce: str
    words: str


def settled(claim: Claim, end: Ending, at: datetime) -> Steps[bool]:
    """End a trigger, and tell its thread if it is still one in which anything is told."""
    found = yield from ask("wakes.of", trigger_id=claim.trigger_id)
    if not found:
        return False
    thread_id, agent_id = str(found[0]["thread_id"]), str(found[0]["agent_id"])
    loaded = yield Known(Ask(workspace_id=None, thread_id=thread_id))
    now = yield from server_time()
    if thread_id not in loaded.threads or not (yield from ask("wakes.hold", **held(claim, now))):
        return False
    attempts = [wake_rows.attempt(row) for row in (yield from ask("wakes.attempts", trigger_id=claim.trigger_id))]
    taken_in = [str(row["trigger_id"]) for row in (yield from _open_followers(claim.trigger_id))]
    how = {"outcome": end.outcome.value, "code": end.code and end.code.value, "detail": end.detail}
    yield from ask("wakes.end", trigger_id=claim.trigger_id, ended_at=rows.text(at), **how)
    yield from ask("wakes.end_trigger", trigger_id=claim.trigger_id, status=end.status.value)
    yield from ask("wakes.forget_silent", before=rows.text(at - _FORGET_SILENT))
    told: Snapshot = {
        "trigger_id": claim.trigger_id,
        "target": agent_id,
        "status": end.status.value,
        "outcome": end.outcome.value,
        "code": end.code and end.code.value,
        "holder": claim.holder,
        "taken_in": taken_in,
        "attempts": [_told(one) for one in attempts],
    }
    note = _Note("settle_trigger", claim.trigger_id, after=told)
    metadata: dict[str, Any] = {"trigger_id": claim.trigger_id, "agent_id": agent_id}
    says: list[_Says] = []
    if end.bounce:
        undelivered = {"event_type": UNDELIVERED, **metadata, "code": end.code and end.code.value}
        says.append(_Says(MessageKind.SYSTEM, end.bounce, undelivered))
    if end.words:
        says.append(_Says(MessageKind.CHAT, end.words, metadata, to=agent_id))
    yield from _audited(loaded, thread_id, note, at, says=says, traceparent=str(found[0]["traceparent"]))
    return True


def steered(trigger_id: str, status: Status, actor: str, reason: str, forced: bool, at: datetime) -> Steps[bool]:
    """Cancel or retry a trigger for an operator; False when there is none."""
    found = yield from ask("wakes.of", trigger_id=trigger_id)
    if not found:
        return False
    loaded = yield Known(Ask(workspace_id=None, thread_id=str(found[0]["thread_id"])))
    found = yield from ask("wakes.of", trigger_id=trigger_id)
    if not found:
        return False
    row = found[0]
    before, now = Status(row["status"]), rows.text(at)
    if after(before, Event.CANCEL if status is Status.CANCELLED else Event.RETRY) is not status:
        return True
    if status is Status.CANCELLED:
        yield from ask("wakes.free", trigger_id=trigger_id)
        yield from ask("wakes.end", trigger_id=trigger_id, outcome=None, code=None, detail=reason, ended_at=now)
        yield from ask("wakes.end_trigger", trigger_id=trigger_id, status=status.value)
    elif before is Status.QUEUED:
        if rows.instant(row["due_at"]) <= at and (row["forced"] or not forced):
            return True
        yield from ask("wakes.hurry", trigger_id=row["leader"] or trigger_id, at=now, forced=int(forced))
    else:
        yield from ask("wakes.renew_state", trigger_id=trigger_id, at=now, forced=int(forced))
        yield from ask("wakes.renew_followers", trigger_id=trigger_id)
        yield from ask("wakes.renew_trigger", trigger_id=trigger_id)
    told = {"trigger_id": trigger_id, "target": row["agent_id"], "status": status.value, "reason": reason}
    note = _Note(
        "cancel_trigger" if status is Status.CANCELLED else "retry_trigger",
        trigger_id,
        actor=actor,
        role=Role.OPERATOR,
        before={"status": before.value},
        after={**told, "forced": forced} if forced else told,
    )
    yield from _audited(loaded, str(row["thread_id"]), note, at)
    return True


def all_paused() -> Steps[frozenset[tuple[str, str]]]:
    """Give who is left alone."""
    found = yield from ask("wakes.paused")
    return frozenset((str(row["workspace_id"]), str(row["agent_id"])) for row in found)


def pausing(workspace_id: str, agent_id: str, is_paused: bool, actor: str, at: datetime) -> Steps[bool]:
    """Have an agent left alone, or no longer."""
    loaded = yield Known(Ask(workspace_id=workspace_id))
    asked = {"workspace_id": workspace_id, "agent_id": agent_id}
    if is_paused:
        found = yield from ask("wakes.pause", **asked, actor=actor, at=rows.text(at))
    else:
        found = yield from ask("wakes.resume", **asked)
    if not found:
        return False
    operation = "pause_agent" if is_paused else "resume_agent"
    told = {"agent_id": agent_id, "paused": is_paused}
    note = _Note(operation, f"{operation}:{agent_id}", actor=actor, role=Role.OPERATOR, after=told)
    yield from _written(
        loaded, Ask(workspace_id=workspace_id), at, lambda facts: Change(audit=(note.of(facts, workspace_id),))
    )
    return True


class _Says(NamedTuple):
    """A message of the bridge."""

    kind: MessageKind
    body: str
    metadata: Mapping[str, Any]
    to: str | None = None


@dataclass(frozen=True, slots=True)
class _Note:
    """What the audit says of it."""

    operation: str
    request_id: str
    actor: str = SUPERVISOR
    role: Role = Role.COORDINATOR
    before: Snapshot | None = None
    after: Snapshot | None = None

    def of(self, facts: Facts, workspace_id: str, thread_id: str | None = None) -> AuditNote:
        return AuditNote(
            at=facts.now,
            workspace_id=workspace_id,
            actor=self.actor,
            role=self.role,
            request_id=self.request_id,
            operation=self.operation,
            thread_id=thread_id,
            before=self.before,
            after=self.after,
        )


def _audited(
    loaded: Loaded,
    thread_id: str,
    note: _Note,
    at: datetime,
    *,
    trigger: Trigger | None = None,
    says: Sequence[_Says] = (),
    traceparent: str = "",
) -> Steps[None]:
    """Write a line into a thread's chain, and with it a trigger, or messages of the bridge."""

    def plan(facts: Facts) -> Change[None]:
        thread = facts.thread
        if thread is None:
            raise Lost
        told = says if thread.status in OPEN_FOR_POSTS else ()
        messages = (
            Message(
                message_id=f"msg_{int(at.timestamp() * 1000):012x}{secrets.token_hex(10)}",
                thread_id=thread_id,
                seq=facts.next_seq + place,
                sender=GUARD,
                to=one.to,
                kind=one.kind,
                body=one.body,
                metadata=dict(one.metadata),
                created_at=facts.now,
                traceparent=traceparent,
            )
            for place, one in enumerate(told)
        )
        posts = tuple(Post(message=message, thread_status=thread.status) for message in messages)
        return Change(trigger=trigger, posts=posts, audit=(note.of(facts, thread.workspace_id, thread_id),))

    yield from _written(loaded, Ask(workspace_id=None, thread_id=thread_id), at, plan)


def _written(loaded: Loaded, ask: Ask, at: datetime, plan: Any) -> Steps[None]:
    batch = Batch(loaded)
    batch.add(ask, plan, at)
    settle(batch.outcomes[0])
    yield Written(batch)


def _open_followers(trigger_id: str) -> Steps[list[Any]]:
    found = yield from ask("wakes.followers", trigger_id=trigger_id)
    return [row for row in found if row["trigger_status"] == Status.QUEUED]


def _told(attempt: Attempt) -> dict[str, Any]:
    """Tell of an attempt in the audit: what its thread's archive keeps of it."""
    return {
        "number": attempt.number,
        "way": attempt.way.value,
        "began_at": rows.text(attempt.began_at),
        "outcome": attempt.outcome and attempt.outcome.value,
        "code": attempt.code and attempt.code.value,
    }
