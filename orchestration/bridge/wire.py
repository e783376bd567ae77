"""The wire, version 1: what each method is asked and answers. HTTP, MCP, OpenAPI and klorosctl all speak these models.

A request may carry fields of a later minor version, which are ignored; answers carry no field that is not named here.
Instants are RFC 3339 in UTC. Sizes are of the UTF-8 text: body at most 64 KiB, metadata 16 KiB and eight levels deep.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from orchestration.bridge.caller import Role

SCHEMA_VERSION: Final = 1
MAX_BODY: Final = 64 * 1024
MAX_METADATA: Final = 16 * 1024
MAX_METADATA_DEPTH: Final = 8
MAX_TITLE: Final = 200
MAX_PARTICIPANTS: Final = 64
MAX_WAIT: Final = 30.0
LARGEST_SEQ: Final = 2**53 - 1
"""Of messages and of the audit: what every client's numbers can hold, and every store's."""

AgentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$", examples=["reviewer"])]
WorkspaceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$", examples=["kloros"])]
ThreadId = Annotated[str, Field(pattern=r"^thr_[0-9a-f]{32}$", examples=["thr_0f0e0d0c0b0a09080706050403020100"])]
MessageId = Annotated[str, Field(pattern=r"^msg_[0-9a-f]{32}$", examples=["msg_0f0e0d0c0b0a09080706050403020100"])]
TriggerId = Annotated[str, Field(pattern=r"^trg_[0-9a-f]{32}$", examples=["trg_0f0e0d0c0b0a09080706050403020100"])]
WITHOUT_NUL: Final = r"^[^\x00]*$"
"""What a store is asked for by: PostgreSQL takes no NUL in any text, not even to look for it."""
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=200, pattern=WITHOUT_NUL, examples=["9f2c-1"])]
SessionId = Annotated[
    str,
    Field(min_length=1, max_length=200, pattern=WITHOUT_NUL, examples=["0199a213-81c0-7800-8aa1-bbab2a035a53"]),
]
Reason = Annotated[str, Field(max_length=1000, examples=["verified by the reviewer"])]


class ThreadType(StrEnum):
    CONVERSATION = "conversation"
    WORKFLOW = "workflow"
    INCIDENT = "incident"


class ThreadStatus(StrEnum):
    """Where a thread stands; the table of changes is in `thread.py`."""

    ACTIVE = "active"
    BLOCKED = "blocked"
    RESOLVED = "resolved"
    CLOSED = "closed"


class MessageKind(StrEnum):
    CHAT = "chat"
    EVENT = "event"
    SYSTEM = "system"


class ManagementMode(StrEnum):
    MANAGED = "managed"
    UNMANAGED = "unmanaged"


class SessionStatus(StrEnum):
    ACTIVE = "active"
    IDLE = "idle"
    OFFLINE = "offline"


class EventType(StrEnum):
    """The events of a review that the bridge knows by name; others are allowed, and counted as `other`.

    An event's type stands in `metadata.event_type`; what it is about, in `metadata.finding_id`.
    """

    FINDING_REPORTED = "finding_reported"
    FIX_PUSHED = "fix_pushed"
    RE_REVIEW_REQUESTED = "re_review_requested"
    FINDING_VERIFIED = "finding_verified"
    FINDING_REJECTED = "finding_rejected"
    THREAD_ESCALATED = "thread_escalated"
    THREAD_RESOLVED = "thread_resolved"


def _whole(given: object) -> object:
    if isinstance(given, bool):  # which Python takes for the number 1
        raise ValueError("a number is expected")
    return given


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    schema_version: Annotated[Literal[1], BeforeValidator(_whole)] = 1
    """The wire's major version; a newer one is refused."""


_give_fields, _give_names, _give_extra, _give_private = (
    vars(BaseModel)[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)
"""What a model is made of, without the look at its class that `object.__setattr__` takes each time: a third of the cost."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Make one of all its fields, where the values are ours: nothing is checked.

        `model_construct` looks at each field instead, and costs more than the check.
        """
        made = cls.__new__(cls)
        _give_fields(made, fields)
        _give_names(made, set(fields))
        _give_extra(made, None)
        _give_private(made, None)
        return made


class Participant(_Answer):
    agent_id: AgentId
    role: Role
    joined_at: datetime
    last_read_seq: int
    """The cursor: messages up to this one are read."""
    unread: int
    """Messages after the cursor that others have sent to all or to this agent; counted up to 1,000."""
    last_heartbeat_at: datetime | None = None
    session_status: SessionStatus | None = None


class Message(_Answer):
    message_id: MessageId
    thread_id: ThreadId
    seq: int
    """From 1, per thread, without gaps, in the order of commit."""
    sender: AgentId
    kind: MessageKind
    body: str
    metadata: dict[str, Any]
    in_reply_to: MessageId | None = None
    to: AgentId | None = None
    """Whom it is for; None for everybody in the thread."""
    created_at: datetime
    traceparent: str = ""


class CreateThread(_Request):
    workspace_id: WorkspaceId | None = None
    """Must be the verified identity's when it is given."""
    title: Annotated[str, Field(min_length=1, max_length=MAX_TITLE, examples=["Review of the retry patch"])]
    type: ThreadType = ThreadType.CONVERSATION
    participants: Annotated[
        tuple[AgentId, ...], FailFast(), Field(max_length=MAX_PARTICIPANTS, examples=[["executioner", "reviewer"]])
    ] = ()
    """Beside the creator, who is one unless a coordinator or operator creates it for others."""
    created_by: AgentId | None = None
    """Must be the verified identity when it is given."""


class ThreadCreated(_Answer):
    thread_id: ThreadId
    status: ThreadStatus
    created_at: datetime


class GetThread(_Request):
    thread_id: ThreadId


class Thread(_Answer):
    thread_id: ThreadId
    workspace_id: WorkspaceId
    title: str
    type: ThreadType
    status: ThreadStatus
    status_reason: str
    created_by: AgentId
    participants: tuple[Participant, ...]
    last_seq: int
    created_at: datetime
    updated_at: datetime


class UpdateThreadStatus(_Request):
    thread_id: ThreadId
    agent_id: AgentId | None = None
    status: ThreadStatus
    reason: Reason = ""
    expected_status: ThreadStatus | None = None
    """The status from which the change is meant; CONFLICT when the thread stands elsewhere by now."""


class StatusUpdated(_Answer):
    thread_id: ThreadId
    status: ThreadStatus
    updated_at: datetime
    changed: bool


class SummarizeThread(_Request):
    thread_id: ThreadId
    max_messages: Annotated[int, Field(ge=1, le=1000, examples=[200])] = 200


class OpenItem(_Answer):
    finding_id: str
    message_id: MessageId
    """Of the event that reported it."""
    reported_by: AgentId
    state: EventType
    """The last event about it."""
    body: str


class ThreadSummary(_Answer):
    thread_id: ThreadId
    summary: str
    open_items: tuple[OpenItem, ...]
    last_status: ThreadStatus


class PostMessage(_Request):
    thread_id: ThreadId
    kind: MessageKind = MessageKind.CHAT
    body: Annotated[str, Field(max_length=MAX_BODY, examples=["The fix is on branch retry-2."])]
    metadata: dict[str, Any] = Field(
        default_factory=dict,  # a default would be copied, deeply, for each message
        examples=[{"event_type": "fix_pushed", "finding_id": "F-1"}],
        json_schema_extra={"default": {}},
    )
    in_reply_to: MessageId | None = None
    idempotency_key: IdempotencyKey | None = None
    to: AgentId | None = None
    agent_id: AgentId | None = None
    """The sender; must be the verified identity when it is given."""


class MessagePosted(_Answer):
    message_id: MessageId
    seq: int
    thread_status: ThreadStatus
    created_at: datetime


class ReadMessages(_Request):
    thread_id: ThreadId
    agent_id: AgentId | None = None
    since_seq: Annotated[int, Field(ge=0, le=LARGEST_SEQ, examples=[0])] = 0
    """Messages after this one are wanted."""
    limit: Annotated[int, Field(ge=1, le=200, examples=[50])] = 50
    wait_seconds: Annotated[float, Field(ge=0, le=MAX_WAIT, examples=[20])] = 0
    """How long to wait for a message when there is none yet."""


class MessagesRead(_Answer):
    messages: tuple[Message, ...]
    next_seq: int
    """What to give as `since_seq` next."""
    has_more: bool


class AckRead(_Request):
    thread_id: ThreadId
    agent_id: AgentId | None = None
    last_read_seq: Annotated[int, Field(ge=0, le=LARGEST_SEQ, examples=[12])]


class ReadAcked(_Answer):
    thread_id: ThreadId
    agent_id: AgentId
    last_read_seq: int
    changed: bool


class HeartbeatSession(_Request):
    agent_id: AgentId | None = None
    workspace_id: WorkspaceId | None = None
    session_id: SessionId
    runtime: Annotated[str, Field(min_length=1, max_length=64, examples=["codex"])]
    management_mode: ManagementMode = ManagementMode.UNMANAGED
    resumable: bool = False
    status: SessionStatus = SessionStatus.ACTIVE


class SessionHeartbeat(_Answer):
    agent_id: AgentId
    session_id: SessionId
    status: SessionStatus
    recorded_at: datetime


class TriggerParticipant(_Request):
    thread_id: ThreadId
    target_agent_id: AgentId
    reason: Reason
    trigger_prompt: Annotated[str, Field(max_length=8 * 1024, examples=["A finding waits for you in the thread."])] = ""


class TriggerQueued(_Answer):
    trigger_id: TriggerId
    status: Literal["queued"] = "queued"
    created_at: datetime


class ListThreads(_Request):
    workspace_id: WorkspaceId | None = None
    status: ThreadStatus | None = None
    participant: AgentId | None = None
    after: ThreadId | None = None
    """The `next_after` of the page before."""
    limit: Annotated[int, Field(ge=1, le=200, examples=[50])] = 50


class ThreadListed(_Answer):
    thread_id: ThreadId
    title: str
    type: ThreadType
    status: ThreadStatus
    last_seq: int
    unread: int
    """Messages after the caller's own cursor that others have sent to all or to it, up to 1,000; 0 outside."""
    updated_at: datetime


class ThreadsListed(_Answer):
    threads: tuple[ThreadListed, ...]
    next_after: ThreadId | None


class ListParticipants(_Request):
    thread_id: ThreadId


class ParticipantsListed(_Answer):
    participants: tuple[Participant, ...]


class AddParticipant(_Request):
    thread_id: ThreadId
    agent_id: AgentId
    """Who is added."""


class RemoveParticipant(_Request):
    thread_id: ThreadId
    agent_id: AgentId


class ParticipantChanged(_Answer):
    thread_id: ThreadId
    agent_id: AgentId
    changed: bool


class SearchMessages(_Request):
    query: Annotated[str, Field(min_length=1, max_length=200, examples=["retry backoff"])]
    """Words that must all occur."""
    thread_id: ThreadId | None = None
    """Only in this thread; else in every thread of the workspace that the caller may read."""
    limit: Annotated[int, Field(ge=1, le=200, examples=[50])] = 50


class MessagesFound(_Answer):
    messages: tuple[Message, ...]
    """Newest first."""


class GetAudit(_Request):
    thread_id: ThreadId | None = None
    after: Annotated[int, Field(ge=0, le=LARGEST_SEQ)] = 0
    limit: Annotated[int, Field(ge=1, le=200, examples=[50])] = 50


class AuditEntry(_Answer):
    entry: int
    at: datetime
    actor: str
    role: Role
    request_id: str
    operation: str
    thread_id: ThreadId | None
    outcome: str
    """`done`, or the code of the refusal."""
    rule: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    sha256: str


class AuditRead(_Answer):
    entries: tuple[AuditEntry, ...]
    next_after: int
    has_more: bool
