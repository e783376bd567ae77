"""The nouns of waking: a case to decide on, what is known of it, a claim on it, and one attempt. Pure.

A case is a thread and one agent in it. Its trigger, a row that says that the agent is to be woken, is made for unread
messages or because somebody asked; there is at most one open trigger for a case.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestration.bridge.state import Session
from orchestration.bridge.wire import ThreadStatus


class Outcome(StrEnum):
    """What an attempt to wake comes to; the last one is the trigger's."""

    TRIGGERED = "triggered"
    ALREADY_ACTIVE = "already_active"
    DEFERRED = "deferred"
    FALLBACK_RESUMED = "fallback_resumed"
    FALLBACK_SPAWNED = "fallback_spawned"
    FAILED = "failed"
    DEAD_LETTERED = "dead_lettered"


class Code(StrEnum):
    """Why an attempt did not come to what it was for."""

    RUNTIME_NOT_FOUND = "RUNTIME_NOT_FOUND"
    RUNTIME_SESSION_MISMATCH = "RUNTIME_SESSION_MISMATCH"
    RUNTIME_UNMANAGED = "RUNTIME_UNMANAGED"
    RUNTIME_OFFLINE = "RUNTIME_OFFLINE"
    OPERATOR_BUSY = "OPERATOR_BUSY"
    DEFER_TIMEOUT = "DEFER_TIMEOUT"
    TARGET_NOT_FOUND = "TARGET_NOT_FOUND"
    PANE_DEAD = "PANE_DEAD"
    SEND_KEYS_ERROR = "SEND_KEYS_ERROR"
    TRIGGER_RATE_LIMITED = "TRIGGER_RATE_LIMITED"
    THREAD_AUTO_BLOCKED = "THREAD_AUTO_BLOCKED"
    WAKE_FAILED = "WAKE_FAILED"


class Way(StrEnum):
    """How an attempt wakes."""

    LIVE = "live"
    """The prompt goes into a terminal in which the agent runs."""
    RESUME = "resume"
    """A turn of an earlier session."""
    SPAWN = "spawn"
    """A new session, which begins with the thread's summary."""


class Status(StrEnum):
    """Where a trigger stands; the lifecycle is `wake/trigger.py`."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    DONE = "done"
    DEAD_LETTERED = "dead_lettered"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to wake: begun, and ended once `outcome` is set."""

    number: int
    """From 1, per trigger; a deferral is a row too, and uses up no number of `Limits`."""
    way: Way
    session_id: str = ""
    """Of the runtime; empty for one that is yet to be spawned."""
    holder: str = ""
    """The supervisor: host, pid and boot in one word, for people."""
    fence: int = 0
    cycle: int | None = None
    """The cycle that ran the turn, on the holder's host."""
    began_at: datetime
    cursor: int = 0
    """The agent's cursor then: a higher one later is an acknowledgement."""
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    code: Code | None = None
    detail: str = ""
    """For people: what the runtime said; no content of messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """A trigger with its state."""

    trigger_id: str
    workspace_id: str
    thread_id: str
    agent_id: str
    """Who is to be woken."""
    reason: str
    prompt: str
    """What somebody wants the agent to be told; empty for a trigger made of unread messages."""
    requested_by: str
    forced: bool = False
    """An operator has asked for it to go into the terminal although somebody types there (`force_override`)."""
    status: Status = Status.QUEUED
    created_at: datetime
    due_at: datetime
    """Not to be looked at before."""
    holder: str = ""
    fence: int = 0
    """Rises with every claim; who writes with an older one writes nothing."""
    lease_until: datetime | None = None
    deferred_at: datetime | None = None
    """When it was deferred first."""
    deferrals: int = 0
    renewed_at: datetime | None = None
    """When an operator had it retried last: attempts and deferrals from before count no more, and a terminal may be
    given the prompt again, since a person has asked for it. Of one that follows on a dead letter, when it was made: what
    was given up does not count against it."""
    outcome: Outcome | None = None
    code: Code | None = None
    detail: str = ""
    ended_at: datetime | None = None
    attempts: tuple[Attempt, ...] = ()
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that the store knows of a thread and an agent in it, at one moment."""

    workspace_id: str
    thread_id: str
    thread_status: ThreadStatus
    status_reason: str = ""
    agent_id: str
    takes_part: bool = True
    """False when a trigger's target has left the thread."""
    cursor: int = 0
    last_seq: int = 0
    unread: int = 0
    """Messages after the cursor that are for the agent, and neither its own nor the bridge's (kind `system`): nobody is
    woken because the bridge told the thread that somebody could not be woken."""
    unread_since: datetime | None = None
    """When the oldest of them was posted."""
    unread_last: int = 0
    """`seq` of the newest of them."""
    unread_last_at: datetime | None = None
    """When that one was posted: what is newer than the last attempt was not yet told to anybody."""
    sessions: tuple[Session, ...] = ()
    """Of the agent, the newest heartbeat first."""
    wake: Wake | None = None
    """Its open trigger, else the last one that ended, if there was any."""
    attempted_at: tuple[datetime, ...] = ()
    """When the last attempts of any trigger of this case began, newest first, 20 of them; deferrals not among them."""
    failed_at: tuple[datetime, ...] = ()
    """When the agent's last turns (`resume`, `spawn`), in any thread, ended as failed, newest first, 20 of them. A terminal
    that did not acknowledge is no failure of the runtime."""
    paused: bool = False
    """An operator has asked that this agent be left alone."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write a trigger on, until the lease ends or somebody with a higher fence has it."""

    trigger_id: str
    holder: str
    fence: int
    lease_until: datetime
