"""Everything that `policy.decide` may know: a case, what the runtimes and the turn say, who asks, and when. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from orchestration.bridge.state import Session
from orchestration.bridge.wake import trigger
from orchestration.bridge.wake.limits import Limits, Means
from orchestration.bridge.wake.port import Probe
from orchestration.bridge.wake.state import Case, Code, Status, Way
from orchestration.bridge.wire import ManagementMode, SessionStatus


class Turned(StrEnum):
    """Where the turn of an attempt stands."""

    RUNNING = "running"
    """It waits for its cycle or runs."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It ended otherwise, or the runtime says in its output that it went wrong; timed out and cancelled are such ends."""
    LOST = "lost"
    """Its cycle stood as running while nobody ran it."""
    UNSTARTED = "unstarted"
    """Its supervisor died between the attempt's begin and the cycle: no cycle has its token."""
    UNKNOWN = "unknown"
    """It was begun on another host, which alone can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A turn as it is found."""

    turned: Turned
    session_id: str = ""
    """What the runtime called the session; empty when it has not said."""
    code: Code | None = None
    """Of a failure that has one; None: WAKE_FAILED."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One case at one moment, through the eyes of one supervisor."""

    case: Case
    holder: str
    """Who decides."""
    now: datetime
    means: Means | None
    """What this host can do for the agent; None: it has no profile for it, and no terminal of it."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    """By session id: what the runtime said just now of those `to_probe` names and this host has. A managed session that is
    missing here lives on another host."""
    turn: Turn | None = None
    """Of the attempt in flight, when that is a turn and its holder was on this host."""
    held: frozenset[str] = frozenset()
    """Sessions that another writer was found to hold."""


def to_probe(case: Case, limits: Limits, now: datetime) -> tuple[Session, ...]:
    """Name the sessions whose terminals are worth a look for this decision: none without a trigger that is open, or one
    that became a dead letter before there was such a terminal."""
    wake = case.wake
    if wake is None or (not case.unread and wake.status not in trigger.OPEN):
        return ()
    fresh = terminals(case, limits, now)
    if wake.status in trigger.OPEN:
        return fresh
    tried = {one.session_id for one in wake.attempts}
    return tuple(one for one in fresh if wake.status is Status.DEAD_LETTERED and one.session_id not in tried)


def terminals(case: Case, limits: Limits, now: datetime) -> tuple[Session, ...]:
    """Return the managed sessions that are said to live, on whatever host."""
    return tuple(one for one in case.sessions if is_managed(one) and is_fresh(one, limits, now))


def turn_to_find(case: Case) -> bool:
    """Say whether an attempt in flight is a turn, which the driver has to look for by the attempt's token."""
    flight = trigger.in_flight(case.wake) if case.wake and case.wake.status in trigger.OPEN else None
    return flight is not None and flight.way is not Way.LIVE


def is_managed(session: Session) -> bool:
    """Say whether its terminal is ours to write to."""
    return session.management_mode is ManagementMode.MANAGED


def is_fresh(session: Session, limits: Limits, now: datetime) -> bool:
    """Say whether a session is said to live: it beat lately, and did not say good-bye."""
    return session.status is not SessionStatus.OFFLINE and age(session, now) <= limits.fresh_within


def age(session: Session, now: datetime) -> timedelta:
    """Return how old its heartbeat is; one from a clock that is ahead is new."""
    return max(now - session.heartbeat_at, timedelta(0))
