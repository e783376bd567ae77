"""What the audit says of one mutation or refusal: who, verified; what; by which rule; before and after.

Messages appear by id, kind and hash, never with their text. `chain.py` links the notes. Pure.
"""

from __future__ import annotations

import hashlib

from orchestration.bridge.caller import Caller
from orchestration.bridge.refusal import Refused
from orchestration.bridge.state import AuditNote, Facts, Member, Session, Snapshot, ThreadRow
from orchestration.bridge.wire import Message, ThreadStatus


def note(
    caller: Caller,
    operation: str,
    facts: Facts,
    *,
    thread_id: str | None = None,
    rule: str = "",
    before: Snapshot | None = None,
    after: Snapshot | None = None,
) -> AuditNote:
    """Write down what was done. In a thread that the caller may see, it belongs to the thread's workspace."""
    workspace_id = facts.thread.workspace_id if facts.thread else caller.workspace_id
    actor, role, request_id = caller.agent_id, caller.role, caller.request_id
    return AuditNote(facts.now, workspace_id, actor, role, request_id, operation, thread_id, "done", rule, before, after)


def refused(told: AuditNote, refusal: Refused) -> AuditNote:
    """Turn a note into that of a refusal: its code, its rule, and nothing changed."""
    return told._replace(outcome=refusal.code.value, rule=refusal.rule, after=None)


def of_status(status: ThreadStatus, reason: str) -> Snapshot:
    """Tell where a thread stands."""
    return {"status": status.value, "reason": reason}


def of_thread(thread: ThreadRow, members: tuple[Member, ...]) -> Snapshot:
    """Tell of a new thread."""
    names = [member.agent_id for member in members]
    return {"title": thread.title, "type": thread.type.value, "status": thread.status.value, "participants": names}


def of_message(message: Message) -> Snapshot:
    """Tell of a message without its text."""
    return {
        "message_id": message.message_id,
        "seq": message.seq,
        "kind": message.kind.value,
        "to": message.to,
        "body_sha256": hashlib.sha256(message.body.encode()).hexdigest(),
    }


def of_session(session: Session) -> Snapshot:
    """Tell of a session, but for the time of its heartbeat."""
    return {
        "session_id": session.session_id,
        "runtime": session.runtime,
        "management_mode": session.management_mode.value,
        "resumable": session.resumable,
        "status": session.status.value,
    }
