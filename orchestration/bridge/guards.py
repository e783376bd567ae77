"""What keeps agents from flooding a thread, or from turning in circles in it.

Rates follow the generic cell rate algorithm (ITU-T I.371, as a virtual schedule): one instant per agent and per thread
says when the next post would be due; it is kept in the store, so that a restart or a second process counts on.

Loop guards watch the turns of a thread, that is every chat or event by an agent:

- no progress: `max_turns` turns since the last status change or the last event of a type that was new since then;
- the same finding: reported or rejected `max_repeats` times without being verified in between.

Either blocks the thread with its reason. What they know of a thread (`Loop`) is a value in the thread's row. Pure.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from orchestration.bridge.message import Event
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.thread import GUARD_REASON
from orchestration.bridge.wire import EventType

_LONGEST: Final = 200  # kinds of events and findings that are remembered of one thread


class Rate(NamedTuple):
    """So many in a minute, of which so many at once."""

    per_minute: int
    burst: int

    @property
    def interval(self) -> timedelta:
        """The time that one takes up."""
        return timedelta(minutes=1) / self.per_minute


class Limits(NamedTuple):
    """What the settings allow."""

    agent: Rate
    thread: Rate
    max_turns: int = 20
    max_repeats: int = 3


def admit(due: datetime | None, now: datetime, rate: Rate) -> datetime | timedelta:
    """Give the instant at which the next one would be due, or for how long to wait when this one comes too early.

    Args:
        due: what this gave last time; None at the first.
    """
    start = now if due is None or due < now else due
    early = start - now - (rate.burst - 1) * rate.interval
    return start + rate.interval if early <= timedelta(0) else early


def check_rate(what: str, due: datetime | None, now: datetime, rate: Rate) -> datetime:
    """Give the next due instant, or refuse with RATE_LIMITED and its Retry-After. `what` is `agent` or `thread`."""
    found = admit(due, now, rate)
    if isinstance(found, datetime):
        return found
    whose = "You post" if what == "agent" else "This thread gets"
    raise Refused(
        Code.RATE_LIMITED,
        f"{whose} more than {rate.per_minute} messages a minute.",
        rule=f"guards.rate.{what}",
        details={"per_minute": rate.per_minute, "burst": rate.burst},
        retry_after=found.total_seconds(),
    )


class Loop(NamedTuple):
    """What the loop guards remember of a thread."""

    turns: int = 0
    """Since the last status change or new type of event."""
    types: tuple[str, ...] = ()
    """Types of events since the last status change."""
    findings: tuple[tuple[str, int], ...] = ()
    """How often each finding was reported or rejected since it was last verified."""


def turned(loop: Loop, event: Event | None) -> Loop:
    """Count one turn of an agent: an event, or None for a chat."""
    if event is None:
        return loop._replace(turns=loop.turns + 1)
    is_new = event.type not in loop.types
    return Loop(
        turns=0 if is_new else loop.turns + 1,
        types=(*loop.types, event.type)[-_LONGEST:] if is_new else loop.types,
        findings=_counted(loop.findings, event),
    )


def _counted(findings: tuple[tuple[str, int], ...], event: Event) -> tuple[tuple[str, int], ...]:
    if not event.finding:
        return findings
    others = tuple(found for found in findings if found[0] != event.finding)
    if event.type == EventType.FINDING_VERIFIED:
        return others
    if event.type in (EventType.FINDING_REPORTED, EventType.FINDING_REJECTED):
        return (*others, (event.finding, dict(findings).get(event.finding, 0) + 1))[-_LONGEST:]
    return findings


def status_changed(loop: Loop) -> Loop:
    """Begin anew: whoever changes the status of a thread has looked at it."""
    return Loop()


def tripped(loop: Loop, limits: Limits, *, finding: str = "") -> str:
    """Say why the thread is to be blocked, as its reason; empty when it may go on. `finding`: that of the last event."""
    times = dict(loop.findings).get(finding, 0)
    if finding and times >= limits.max_repeats:
        return f"{GUARD_REASON} finding {finding} was reported or rejected {times} times and is still not verified"
    if loop.turns >= limits.max_turns:
        return f"{GUARD_REASON} {loop.turns} turns without a change of status or a new type of event"
    return ""
