"""How the nouns of the bridge lie in tables, alike for every store: instants and structures as text, names as columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias

from pydantic_core import to_json

from orchestration.bridge.caller import Role
from orchestration.bridge.chain import Head
from orchestration.bridge.state import (
    AuditNote,
    Finding,
    Member,
    Post,
    Progress,
    Rate,
    Remembered,
    Revocation,
    Session,
    ThreadRow,
    Trigger,
)
from orchestration.bridge.wire import (
    AuditEntry,
    ManagementMode,
    Message,
    MessageKind,
    Participant,
    SessionStatus,
    ThreadListed,
    ThreadStatus,
    ThreadType,
)

Found: TypeAlias = Mapping[str, Any]
"""A row as a database gives it: the one place where its values have no types yet."""
Row: TypeAlias = dict[str, str | int | None]
"""Of plain texts and numbers: to write a member of an enum as JSON takes five times as long."""
MOST_UNREAD: Final = 1000
"""Up to which unread messages are counted."""


@lru_cache(maxsize=64)
def text(at: datetime) -> str:
    """Write an instant as store/instants.py does, only faster, and once where many rows tell of the same."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def instant(found: str | datetime) -> datetime:
    """Read an instant of either store."""
    return (datetime.fromisoformat(found) if isinstance(found, str) else found).astimezone(UTC)


def written(structure: object) -> str:
    """Write a structure of our own as JSON."""
    return to_json(structure).decode()


_written_strictly: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def thread_row(thread: ThreadRow, head: Head, version: int) -> Row:
    """Lay out a thread, with the head of its audit and what changes with every change."""
    progress, rate = thread.progress, thread.rate
    return {
        "thread_id": thread.thread_id,
        "workspace_id": thread.workspace_id,
        "title": thread.title,
        "type": str(thread.type),
        "status": str(thread.status),
        "status_reason": thread.status_reason,
        "created_by": thread.created_by,
        "last_seq": thread.last_seq,
        "created_at": text(thread.created_at),
        "updated_at": text(thread.updated_at),
        "turns": progress.turns,
        "last_sender": progress.last_sender,
        "event_types": written(sorted(progress.event_types)) if progress.event_types else "[]",
        "rate_minute": rate.minute,
        "rate_posts": rate.posts,
        "rate_before": rate.before,
        "links": head.links,
        "head": head.sha256,
        "version": version,
    }


def thread(row: Found) -> ThreadRow:
    """Read what `thread_row` laid out."""
    events = row["event_types"]
    return ThreadRow(
        thread_id=row["thread_id"],
        workspace_id=row["workspace_id"],
        title=row["title"],
        type=ThreadType(row["type"]),
        status=ThreadStatus(row["status"]),
        status_reason=row["status_reason"],
        created_by=row["created_by"],
        last_seq=row["last_seq"],
        created_at=instant(row["created_at"]),
        updated_at=instant(row["updated_at"]),
        progress=Progress(
            turns=row["turns"],
            last_sender=row["last_sender"],
            event_types=frozenset(json.loads(events)) if events != "[]" else frozenset(),
        ),
        rate=rate(row),
    )


def rate(row: Found) -> Rate:
    """Read the three columns that count posts."""
    return Rate(minute=row["rate_minute"], posts=row["rate_posts"], before=row["rate_before"])


def rate_row(workspace_id: str, agent_id: str, rate: Rate) -> Row:
    """Lay out how often an agent posted."""
    return {
        "workspace_id": workspace_id,
        "agent_id": agent_id,
        "rate_minute": rate.minute,
        "rate_posts": rate.posts,
        "rate_before": rate.before,
    }


def member(row: Found) -> Member:
    """Read a participant."""
    return Member(
        agent_id=row["agent_id"],
        role=Role(row["role"]),
        joined_at=instant(row["joined_at"]),
        last_read_seq=row["last_read_seq"],
    )


def member_row(thread_id: str, member: Member) -> Row:
    """Lay out a participant."""
    return {
        "thread_id": thread_id,
        "agent_id": member.agent_id,
        "role": str(member.role),
        "joined_at": text(member.joined_at),
        "last_read_seq": member.last_read_seq,
    }


def participant(row: Found) -> Participant:
    """Read a participant for the wire."""
    heard, status = row["heartbeat_at"], row["session_status"]
    return Participant(
        agent_id=row["agent_id"],
        role=Role(row["role"]),
        joined_at=instant(row["joined_at"]),
        last_read_seq=row["last_read_seq"],
        unread=min(row["unread"], MOST_UNREAD),
        last_heartbeat_at=None if heard is None else instant(heard),
        session_status=None if status is None else SessionStatus(status),
    )


def listed(row: Found) -> ThreadListed:
    """Read a thread for a list."""
    return ThreadListed(
        thread_id=row["thread_id"],
        title=row["title"],
        type=ThreadType(row["type"]),
        status=ThreadStatus(row["status"]),
        last_seq=row["last_seq"],
        unread=min(row["unread"], MOST_UNREAD),
        updated_at=instant(row["updated_at"]),
    )


def post_row(post: Post) -> Row:
    """Lay out a message."""
    message = post.message
    return {
        "thread_id": message.thread_id,
        "seq": message.seq,
        "message_id": message.message_id,
        "sender": message.sender,
        "kind": str(message.kind),
        "body": message.body,
        "metadata": _written_strictly(message.metadata) if message.metadata else "{}",
        "in_reply_to": message.in_reply_to,
        "addressee": message.to,
        "created_at": text(message.created_at),
        "traceparent": message.traceparent,
        "thread_status": str(post.thread_status),
        "idempotency_key": post.idempotency_key,
        "payload_sha256": post.payload_sha256,
    }


_KINDS = {kind.value: kind for kind in MessageKind}


def message(row: Found) -> Message:
    """Read a message; it was validated when it was posted."""
    metadata = row["metadata"]
    return Message.model_construct(
        message_id=row["message_id"],
        thread_id=row["thread_id"],
        seq=row["seq"],
        sender=row["sender"],
        kind=_KINDS[row["kind"]],
        body=row["body"],
        metadata=json.loads(metadata) if metadata != "{}" else {},
        in_reply_to=row["in_reply_to"],
        to=row["addressee"],
        created_at=instant(row["created_at"]),
        traceparent=row["traceparent"],
    )


def remembered(row: Found) -> Remembered:
    """Read what a repeat is answered from."""
    return Remembered(
        message_id=row["message_id"],
        seq=row["seq"],
        thread_status=ThreadStatus(row["thread_status"]),
        created_at=instant(row["created_at"]),
        payload_sha256=row["payload_sha256"],
    )


def remembered_post(post: Post) -> Remembered:
    """Say what will answer a repeat of this post."""
    return Remembered(
        message_id=post.message.message_id,
        seq=post.message.seq,
        thread_status=post.thread_status,
        created_at=post.message.created_at,
        payload_sha256=post.payload_sha256,
    )


def finding(row: Found) -> Finding:
    """Read a finding."""
    return Finding(
        finding_id=row["finding_id"],
        state=row["state"],
        reports=row["reports"],
        message_id=row["message_id"],
        reported_by=row["reported_by"],
    )


def finding_row(thread_id: str, finding: Finding) -> Row:
    """Lay out a finding."""
    return {
        "thread_id": thread_id,
        "finding_id": finding.finding_id,
        "state": finding.state,
        "reports": finding.reports,
        "message_id": finding.message_id,
        "reported_by": finding.reported_by,
    }


def session(row: Found) -> Session:
    """Read a session."""
    return Session(
        workspace_id=row["workspace_id"],
        agent_id=row["agent_id"],
        session_id=row["session_id"],
        runtime=row["runtime"],
        management_mode=ManagementMode(row["management_mode"]),
        resumable=bool(row["resumable"]),
        status=SessionStatus(row["status"]),
        heartbeat_at=instant(row["heartbeat_at"]),
    )


def session_row(session: Session) -> Row:
    """Lay out a session."""
    return {
        "workspace_id": session.workspace_id,
        "agent_id": session.agent_id,
        "session_id": session.session_id,
        "runtime": session.runtime,
        "management_mode": str(session.management_mode),
        "resumable": int(session.resumable),
        "status": str(session.status),
        "heartbeat_at": text(session.heartbeat_at),
    }


def trigger(row: Found) -> Trigger:
    """Read a trigger."""
    return Trigger(
        trigger_id=row["trigger_id"],
        thread_id=row["thread_id"],
        target=row["target"],
        reason=row["reason"],
        prompt=row["prompt"],
        requested_by=row["requested_by"],
        status=row["status"],
        created_at=instant(row["created_at"]),
        traceparent=row["traceparent"],
    )


def trigger_row(trigger: Trigger) -> Row:
    """Lay out a trigger."""
    return {
        "trigger_id": trigger.trigger_id,
        "thread_id": trigger.thread_id,
        "target": trigger.target,
        "reason": trigger.reason,
        "prompt": trigger.prompt,
        "requested_by": trigger.requested_by,
        "status": trigger.status,
        "created_at": text(trigger.created_at),
        "traceparent": trigger.traceparent,
    }


def revocation_row(revocation: Revocation) -> Row:
    """Lay out a revocation."""
    return {
        "token_id": revocation.token_id,
        "expires_at": text(revocation.expires_at),
        "revoked_at": text(revocation.revoked_at),
        "revoked_by": revocation.revoked_by,
    }


def audit_row(note: AuditNote, chain: str, link: int) -> Row:
    """Lay out an audit row but for its hash."""
    return {
        "chain": chain,
        "link": link,
        "at": text(note.at),
        "workspace_id": note.workspace_id,
        "actor": note.actor,
        "role": str(note.role),
        "request_id": note.request_id,
        "operation": note.operation,
        "thread_id": note.thread_id,
        "outcome": note.outcome,
        "rule": note.rule,
        "state_before": None if note.before is None else written(note.before),
        "state_after": None if note.after is None else written(note.after),
    }


def hashed_columns(row: Found) -> dict[str, str | int | None]:
    """Return an audit row as it was when it was hashed."""
    return {**row, "at": text(instant(row["at"]))}


def audit_entry(row: Found) -> AuditEntry:
    """Read an audit row for the wire."""
    before, after = row["state_before"], row["state_after"]
    return AuditEntry.model_construct(
        entry=row["entry"],
        at=instant(row["at"]),
        actor=row["actor"],
        role=Role(row["role"]),
        request_id=row["request_id"],
        operation=row["operation"],
        thread_id=row["thread_id"],
        outcome=row["outcome"],
        rule=row["rule"],
        before=None if before is None else json.loads(before),
        after=None if after is None else json.loads(after),
        sha256=row["sha256"],
    )
