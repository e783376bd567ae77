"""What keeps agents from flooding a thread, or from turning in circles in it.

Rates are counted by the store for each agent in its workspace and for each thread (`state.Rate`), so that a restart or a
second process counts on. Loop guards watch the turns of a thread, that is every chat or event by an agent:

- no progress: `max_turns` turns since the last status change or event of a type that had not occurred since then;
- the same finding: reported or rejected `max_repeats` times, or again so many, without being verified in between.

Either blocks the thread, with its reason. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from orchestration.bridge.message import Event
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Finding, Progress, Rate
from orchestration.bridge.thread import GUARD_REASON
from orchestration.bridge.wire import EventType

MAX_TYPES: Final = 100
"""Types of events remembered of a thread; who makes up more of them makes no progress by it."""
_CLAIMS: Final = frozenset({EventType.FINDING_REPORTED, EventType.FINDING_REJECTED})


class Limits(NamedTuple):
    """What the settings allow; 0 turns a guard off."""

    agent_per_minute: int = 120
    thread_per_minute: int = 600
    max_turns: int = 20
    max_repeats: int = 3


def check_rate(what: str, rate: Rate, limit: int, now: datetime) -> None:
    """Refuse with RATE_LIMITED and its Retry-After when a minute's posts are used up. `what` is `agent` or `thread`."""
    if not limit or rate.posts + rate.before < limit:  # which is never less than what fell within the minute
        return
    if (wait := rate.seconds_until(limit, now)) <= 0:
        return
    whose = "You post" if what == "agent" else "This thread gets"
    raise Refused(
        Code.RATE_LIMITED,
        f"{whose} more than {limit} messages a minute. Try again in {wait:.1f} s.",
        rule=f"guards.rate.{what}",
        details={"per_minute": limit},
        retry_after=wait,
    )


def turned(progress: Progress, sender: str, event: Event | None) -> Progress:
    """Count one turn of an agent: an event, or None for a chat."""
    known = event is None or event.type in progress.event_types or len(progress.event_types) >= MAX_TYPES
    if event is None or known:
        return Progress(turns=progress.turns + 1, last_sender=sender, event_types=progress.event_types)
    return Progress(turns=0, last_sender=sender, event_types=progress.event_types | {event.type})


def told(finding: Finding | None, event: Event, *, sender: str, message_id: str) -> Finding | None:
    """Give where a finding stands after an event about it; None when nobody has reported it."""
    is_claim = event.type in _CLAIMS
    if finding is None:
        if event.type != EventType.FINDING_REPORTED:
            return None
        return Finding(finding_id=event.finding, state=event.type, reports=1, message_id=message_id, reported_by=sender)
    reports = 0 if event.type == EventType.FINDING_VERIFIED else finding.reports + is_claim
    return replace(finding, state=event.type, reports=reports)


def is_open(finding: Finding) -> bool:
    """Say whether a finding still waits for somebody: until an event has verified it, rejected or not."""
    return finding.state != EventType.FINDING_VERIFIED


def tripped(progress: Progress, finding: Finding | None, event: Event | None, limits: Limits) -> str:
    """Say why the thread is to be blocked, as its reason; empty when it may go on.

    Args:
        progress, finding: after the turn. event: the turn itself, as an event.
    """
    repeats = finding.reports if finding and event and event.type in _CLAIMS else 0
    if finding and repeats and limits.max_repeats and repeats % limits.max_repeats == 0:
        return f"{GUARD_REASON} finding {finding.finding_id} was reported or rejected {repeats} times without being verified"
    if limits.max_turns and progress.turns >= limits.max_turns:
        return f"{GUARD_REASON} {progress.turns} turns without a change of status or a new type of event"
    return ""
