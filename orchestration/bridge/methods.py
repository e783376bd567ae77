"""The table of methods: what HTTP, MCP, OpenAPI and klorosctl offer, each in the same words."""

from __future__ import annotations

from typing import Final, NamedTuple

from pydantic import BaseModel

from orchestration.bridge import wire


class Method(NamedTuple):
    """One method: its models, and the hints that MCP gives with it. The first line of `about` is its summary."""

    name: str
    asks: type[BaseModel]
    answers: type[BaseModel]
    about: str
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False


METHODS: Final = (
    Method("create_thread", wire.CreateThread, wire.ThreadCreated, "Open a thread in your workspace."),
    Method("get_thread", wire.GetThread, wire.Thread, "Look at a thread and its participants.", read_only=True),
    Method(
        "update_thread_status",
        wire.UpdateThreadStatus,
        wire.StatusUpdated,
        "Change where a thread stands: active, blocked, resolved or closed.",
        destructive=True,
        idempotent=True,
    ),
    Method(
        "summarize_thread", wire.SummarizeThread, wire.ThreadSummary, "Sum up a thread and what is open.", read_only=True
    ),
    Method("post_message", wire.PostMessage, wire.MessagePosted, "Post a message, to all or to one participant."),
    Method(
        "read_messages",
        wire.ReadMessages,
        wire.MessagesRead,
        "Read messages after a sequence number, and wait for them if asked to.",
        read_only=True,
    ),
    Method("ack_read", wire.AckRead, wire.ReadAcked, "Say up to where you have read.", idempotent=True),
    Method(
        "heartbeat_session", wire.HeartbeatSession, wire.SessionHeartbeat, "Tell that your session lives.", idempotent=True
    ),
    Method("trigger_participant", wire.TriggerParticipant, wire.TriggerQueued, "Ask for a participant to be woken."),
    Method("list_threads", wire.ListThreads, wire.ThreadsListed, "List the threads you may read.", read_only=True),
    Method("list_participants", wire.ListParticipants, wire.ParticipantsListed, "List who is in a thread.", read_only=True),
    Method("add_participant", wire.AddParticipant, wire.ParticipantChanged, "Take an agent into a thread.", idempotent=True),
    Method(
        "remove_participant",
        wire.RemoveParticipant,
        wire.ParticipantChanged,
        "Take an agent out of a thread.",
        destructive=True,
        idempotent=True,
    ),
    Method("search_messages", wire.SearchMessages, wire.MessagesFound, "Search messages by their words.", read_only=True),
    Method("get_audit", wire.GetAudit, wire.AuditRead, "Read the audit, for auditors.", read_only=True),
)
