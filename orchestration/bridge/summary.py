"""What stands in a thread, from its findings and its latest messages: the same thread gives the same words.

A finding is open from its report until an event verifies it; a rejection keeps it open, because whoever rejects (the
fix, or the finding) says that something is not settled. Pure, and without a model: a command may write a better text
(`summarising.py`), and this is what it falls back to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from orchestration.bridge.guards import is_open
from orchestration.bridge.state import FoundFinding, ThreadRow
from orchestration.bridge.wire import EventType, Message, MessageKind, OpenItem, Participant

_SPEAKERS: Final = 5
_OPEN_LISTED: Final = 20
_EXCERPT: Final = 200
_WORDS: Final = (
    (EventType.FIX_PUSHED, "fixed"),
    (EventType.RE_REVIEW_REQUESTED, "to be reviewed again"),
    (EventType.FINDING_VERIFIED, "verified"),
    (EventType.FINDING_REJECTED, "rejected"),
)


def open_items(findings: Sequence[FoundFinding]) -> tuple[OpenItem, ...]:
    """List the findings that are not verified, in the order in which they were first reported."""
    return tuple(
        OpenItem(
            finding_id=found.finding.finding_id,
            message_id=found.finding.message_id,
            reported_by=found.finding.reported_by,
            state=EventType(found.finding.state),
            body=_excerpt(found.body),
        )
        for found in findings
        if is_open(found.finding)
    )


def text(
    thread: ThreadRow,
    participants: Sequence[Participant],
    findings: Sequence[FoundFinding],
    messages: Sequence[Message],
) -> str:
    """Write the summary: status, findings, open ones with their message ids, last speakers, unread counts.

    Args:
        messages: the latest ones, in order.
    """
    states = Counter(found.finding.state for found in findings)
    items = open_items(findings)
    reason = f" ({thread.status_reason})" if thread.status_reason else ""
    lines = [
        f"“{thread.title}” is {thread.status}{reason}, with {_count(thread.last_seq, 'message')}.",
        f"Findings: {len(findings)} reported, "
        + ", ".join(f"{states[state]} {word}" for state, word in _WORDS)
        + f"; {len(items)} open.",
    ]
    lines += [
        f"Open: {item.finding_id} by {item.reported_by}, {item.state}, in {item.message_id}: {item.body}"
        for item in items[:_OPEN_LISTED]
    ]
    if len(items) > _OPEN_LISTED:
        lines.append(f"Open: {len(items) - _OPEN_LISTED} more.")
    if speakers := last_speakers(messages):
        lines.append(f"Last to speak: {', '.join(speakers)}.")
    if unread := [f"{one.agent_id} {one.unread}" for one in participants if one.unread]:
        lines.append(f"Unread: {', '.join(unread)}.")
    return "\n".join(lines)


def last_speakers(messages: Sequence[Message]) -> tuple[str, ...]:
    """Name who spoke last, each once, the latest first, at most five, with how often they spoke."""
    senders = [message.sender for message in messages if message.kind is not MessageKind.SYSTEM]
    often = Counter(senders)
    return tuple(f"{name} ({often[name]})" for name in list(dict.fromkeys(reversed(senders)))[:_SPEAKERS])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _excerpt(body: str) -> str:
    line = " ".join(body.split())
    return line if len(line) <= _EXCERPT else line[: _EXCERPT - 1] + "…"
