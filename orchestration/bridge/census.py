"""All threads at one look: how many stand where, who waits for whom, and how many messages of which kind there are.

The words for metrics, health and the page alike. Pure; `store/` counts, `watching.py` says when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from orchestration.bridge.caller import GUARD, OPERATOR
from orchestration.bridge.message import OTHER, Event
from orchestration.bridge.wire import EventType, MessageKind, SessionStatus, ThreadStatus

MOST_SHOWN: Final = 20
"""Threads that are told one by one."""
MOST_WAITING: Final = 10_000
"""Participants behind in open threads that a look counts; the longest waits are among them."""
NO_EVENT: Final = "none"
STATUS_CHANGED: Final = "thread_status_changed"
EVENT_TYPES: Final = (NO_EVENT, *(kind.value for kind in EventType), STATUS_CHANGED, OTHER)
"""What the label `event_type` may be; `none` is a message that is no event."""


class By(StrEnum):
    """Who blocked a thread."""

    GUARD = "guard"
    OPERATOR = "operator"
    AGENT = "agent"


class Guard(StrEnum):
    """Which loop guard blocked it."""

    TURNS = "turns"
    FINDING = "finding"


class Sort(NamedTuple):
    """What a message is, as it is counted."""

    kind: MessageKind
    event_type: str
    escalated_by: By | None = None
    """Of the message that tells of a thread that it is blocked from then on: who did it."""
    guard: Guard | None = None


def sort_of(kind: str, event_type: object, *, status: object, sender: object, reason: object) -> Sort:
    """Say what a message counts as.

    Args:
        status, reason: what a system message says of the thread from then on. sender: of a system message.
    """
    label = NO_EVENT
    if event_type is not None:
        label = STATUS_CHANGED if event_type == STATUS_CHANGED else Event(str(event_type)).label
    if kind != MessageKind.SYSTEM or label != EventType.THREAD_ESCALATED or status != ThreadStatus.BLOCKED:
        return Sort(MessageKind(kind), label)
    if sender == GUARD:
        guard = Guard.FINDING if str(reason).startswith("loop_guard: finding") else Guard.TURNS
        return Sort(MessageKind(kind), label, By.GUARD, guard)
    return Sort(MessageKind(kind), label, By.OPERATOR if str(sender).startswith(OPERATOR) else By.AGENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """A participant that has not read what another said, and since when it is there (aware UTC)."""

    thread_id: str
    status: ThreadStatus
    agent_id: str
    """Who is waited for."""
    sender: str
    """Who waits."""
    since: datetime
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A participant of a thread that is shown: up to where it has read, and when its session last told that it lives."""

    agent_id: str
    last_read_seq: int
    unread: int
    heartbeat_at: datetime | None
    session: SessionStatus | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One thread that is shown."""

    thread_id: str
    workspace_id: str
    title: str
    status: ThreadStatus
    reason: str
    last_seq: int
    updated_at: datetime
    seats: tuple[Seat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What one look found. Where nothing ever was in the store, all of it is empty."""

    at: datetime
    threads: Mapping[ThreadStatus, int]
    since: Mapping[ThreadStatus, datetime]
    """When the thread last changed that has stood there longest."""
    unread: Mapping[ThreadStatus, int]
    """How many messages wait for their readers, added up."""
    waits: tuple[Waits, ...]
    """In open threads, the longest first, at most `MOST_WAITING`."""
    shown: tuple[Standing, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no thread at all."""
        return not any(self.threads.values())

    def waits_in(self, status: ThreadStatus) -> tuple[Waits, ...]:
        """Give who is behind in threads that stand there."""
        return tuple(one for one in self.waits if one.status is status)


@dataclass(slots=True)
class Tally:
    """Messages counted by sort, and up to where in which thread: what comes later is added, and nothing counted twice."""

    counted: dict[Sort, int] = field(default_factory=dict)
    upto: dict[str, int] = field(default_factory=dict)

    def stretches(self, lengths: Mapping[str, int]) -> list[tuple[str, int, int]]:
        """Give what is still to be counted: thread, last message counted, last message there is."""
        return [(name, self.upto.get(name, 0), last) for name, last in lengths.items() if last > self.upto.get(name, 0)]

    def add(self, stretches: list[tuple[str, int, int]], found: Mapping[Sort, int]) -> None:
        """Note what was found in some stretches."""
        for sort, messages in found.items():
            self.counted[sort] = self.counted.get(sort, 0) + messages
        self.upto.update({name: last for name, _, last in stretches})
