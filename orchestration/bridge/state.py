"""What the rules may know of a thread (`Facts`) and what they may do to the store (`Change`); both are values.

A mutation is one pass: the store takes the thread's row, loads the facts that the `Ask` names, calls the plan, and writes
all of the change in the same transaction, or nothing. Plans are pure: they may be called again, in any thread, beside
others of the same batch; each then sees what those before it changed. `seq` is the plan's to give: `facts.next_seq`.

A refusal is a change as well: `Change(refusal=…, audit=…)` writes its audit rows and is raised once they are safe. A plan
that raises `Refused` itself leaves no trace.

What every post makes some of is a NamedTuple: a frozen dataclass of twelve fields takes three times as long to make. All are
made by keyword, but the largest where every post makes one: by place, in half the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from orchestration.bridge.caller import Role
from orchestration.bridge.refusal import Refused
from orchestration.bridge.wire import (
    ManagementMode,
    Message,
    SessionStatus,
    ThreadStatus,
    ThreadType,
)

Answer = TypeVar("Answer")
Snapshot: TypeAlias = Mapping[str, Any]
"""What an audit row tells of a thing before or after; JSON."""


class Ask(NamedTuple):
    """Which facts a plan needs; what is left out is not looked up."""

    workspace_id: str | None
    """The caller's; threads of another are not shown to the plan. None, for an operator: whatever the thread's is."""
    thread_id: str | None = None
    """None for what belongs to no thread; a new id for a thread that the plan creates."""
    agent_id: str = ""
    """Who acts: whose idempotency key, rate and session are looked up."""
    idempotency_key: str | None = None
    finding_id: str | None = None
    replies_to: str | None = None
    """Message id; `Facts.replied_to` tells whether it is one of the thread."""
    session_id: str | None = None
    removes: bool = False
    """The plan may take the thread out of the store; its audit then goes by the workspace's chain."""


class Rate(NamedTuple):
    """Posts counted by the minute of the clock, so that asking costs the same at any rate.

    The last minute is this minute's posts and that share of the minute before which still lies within 60 seconds.
    """

    minute: int = 0
    """Minutes since 1970, UTC."""
    posts: int = 0
    before: int = 0

    def within(self, now: datetime) -> float:
        """Return how many posts fell in the 60 seconds before `now`."""
        current = self._at(now)
        return current.posts + current.before * (1 - now.timestamp() % 60 / 60)

    def seconds_until(self, limit: int, now: datetime) -> float:
        """Return in how many seconds fewer than `limit` posts fall in the minute before; 0 when they do already."""
        current, passed = self._at(now), now.timestamp() % 60
        if current.within(now) < limit:
            return 0.0
        if current.posts < limit and current.before:
            return max(60 * (1 - (limit - current.posts) / current.before) - passed, 0.0) + 0.1
        return 60 - passed + max(60 * (1 - limit / current.posts), 0.0) + 0.1

    def counted(self, now: datetime, posts: int = 1) -> Rate:
        """Return it with posts made at `now`."""
        minute, counted, before = self._at(now)
        return Rate(minute, counted + posts, before)

    def and_more(self, posts: int) -> Rate:
        """Return it with posts made within the same moments as the last of those counted."""
        return Rate(self.minute, self.posts + posts, self.before)

    def _at(self, now: datetime) -> Rate:
        minute = _minute(now)
        if minute <= self.minute:  # a clock set back counts on in the minute that it knew
            return self
        return Rate(minute=minute, before=self.posts if minute == self.minute + 1 else 0)


@lru_cache(maxsize=64)
def _minute(now: datetime) -> int:
    return int(now.timestamp() // 60)


class Progress(NamedTuple):
    """What the loop guard counts in a thread; the rules say what a turn is."""

    turns: int = 0
    """Since the last status change or new event type."""
    last_sender: str = ""
    event_types: frozenset[str] = frozenset()
    """Seen in the thread so far, or since the rules last emptied it."""


class ThreadRow(NamedTuple):
    """A thread without its participants and messages."""

    thread_id: str
    workspace_id: str
    title: str
    type: ThreadType
    status: ThreadStatus
    created_by: str
    created_at: datetime
    updated_at: datetime
    status_reason: str = ""
    last_seq: int = 0
    progress: Progress = Progress()
    rate: Rate = Rate()
    """Of everybody's posts to it."""


class Member(NamedTuple):
    """A participant as the rules see it: `last_read_seq` is the cursor."""

    agent_id: str
    role: Role
    joined_at: datetime
    last_read_seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Where one finding of a thread stands."""

    finding_id: str
    state: str
    """The type of the last event about it."""
    reports: int
    """How often it was reported without being resolved."""
    message_id: str
    """Of the event that reported it first."""
    reported_by: str


class Post(NamedTuple):
    """A message to be written, with what answers its repeats."""

    message: Message
    thread_status: ThreadStatus
    """Where the thread stood once it was posted: part of the answer."""
    idempotency_key: str | None = None
    payload_sha256: str = ""
    """Of what was asked, so that another payload under the same key is told apart; 64 hex digits."""


class Remembered(NamedTuple):
    """The post that an idempotency key stands for: enough to answer again."""

    message_id: str
    seq: int
    thread_status: ThreadStatus
    created_at: datetime
    payload_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A runtime of an agent, as its last heartbeat told."""

    workspace_id: str
    agent_id: str
    session_id: str
    runtime: str
    management_mode: ManagementMode
    resumable: bool
    status: SessionStatus
    heartbeat_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A wish, safe in the store, that a participant be woken."""

    trigger_id: str
    thread_id: str
    target: str
    reason: str
    prompt: str
    requested_by: str
    status: str = "queued"
    created_at: datetime
    traceparent: str = ""
    """W3C trace context of the request that asked for it; empty when it had none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A token that counts no more, kept until it would have expired anyway."""

    token_id: str
    expires_at: datetime
    revoked_at: datetime
    revoked_by: str


class AuditNote(NamedTuple):
    """One row of the audit before the store links it into its chain: the thread's, or the workspace's for what has none."""

    at: datetime
    workspace_id: str
    actor: str
    role: Role
    request_id: str
    operation: str
    thread_id: str | None = None
    """The one that was asked for, be it there or not."""
    outcome: str = "done"
    """`done`, or the code of the refusal."""
    rule: str = ""
    before: Snapshot | None = None
    after: Snapshot | None = None


class Facts(NamedTuple):
    """All that a plan may know. What its `Ask` did not name is empty."""

    now: datetime
    members: Mapping[str, Member]
    thread: ThreadRow | None = None
    """None when there is no such thread, or it is another workspace's."""
    elsewhere: bool = False
    """The thread is there, in another workspace: answered like one that is not, and audited as a fence."""
    rate: Rate = Rate()
    """Of all posts of the agent in the workspace."""
    remembered: Remembered | None = None
    finding: Finding | None = None
    replied_to: bool = False
    session: Session | None = None
    links: int = 0
    """How many rows of the audit the thread has."""

    @property
    def next_seq(self) -> int:
        """The number of the next message."""
        return self.thread.last_seq + 1 if self.thread else 1


class Change(NamedTuple, Generic[Answer]):
    """Everything that one mutation writes; `answer` is what `Store.change` returns once it is safe."""

    answer: Answer | None = None
    refusal: Refused | None = None
    """Raised instead of the answer; beside it only `audit` is written."""
    audit: tuple[AuditNote, ...] = ()
    created: ThreadRow | None = None
    status: tuple[ThreadStatus, str] | None = None
    """Where the thread stands from now on, and the reason."""
    joined: tuple[Member, ...] = ()
    left: tuple[str, ...] = ()
    read: tuple[str, int] | None = None
    """An agent, and where its cursor stands from now on."""
    posts: tuple[Post, ...] = ()
    """Numbered on from `facts.next_seq`. The store counts their rates."""
    progress: Progress | None = None
    findings: tuple[Finding, ...] = ()
    session: Session | None = None
    trigger: Trigger | None = None
    revocation: Revocation | None = None
    removed: bool = False
    """The thread goes, with everything that belongs to it and its audit; of this change only `audit` is written, and that
    to the workspace's chain. Takes `Ask.removes`."""


Plan: TypeAlias = Callable[[Facts], Change[Answer]]


class Reading(NamedTuple):
    """One read of a thread: whether the reader may have it is for the rules to say, before it goes out."""

    thread: ThreadRow | None
    member: Member | None
    """The reader, if it is in the thread."""
    messages: tuple[Message, ...]


class ReadingText(NamedTuple):
    """A `Reading` for a face that sends JSON anyway: what would cost the most is never made into objects."""

    thread: ThreadRow | None
    member: Member | None
    messages: bytes
    """A JSON array of wire.Message."""
    next_seq: int
    """Of the last message; where there is none, what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFinding:
    """A finding, with the words of the message that reported it."""

    finding: Finding
    body: str
    to: str | None = None
    """Whom that message is for; None for everybody in the thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFault:
    """Where the audit has been tampered with."""

    chain: str
    """A thread's id, or `workspace:` and its name."""
    link: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainsVerified:
    """What walking all chains of the audit has found."""

    chains: int
    entries: int
    faults: tuple[ChainFault, ...]
