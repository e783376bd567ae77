"""What stands in a thread, read from its messages alone: the same messages give the same words.

A finding is open from its report until an event verifies it; a rejection keeps it open, because whoever rejects (the
fix, or the finding) says that something is not settled. Pure, and without a model: a command that writes a better text
is `commands`' business, and this is what it falls back to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from orchestration.bridge.message import Event, event_of
from orchestration.bridge.wire import EventType, Message, MessageKind, OpenItem, Participant, ThreadStatus

_SPEAKERS: Final = 5
_OPEN_LISTED: Final = 20
_EXCERPT: Final = 200
_TOLD: Final = (
    (EventType.FINDING_REPORTED, "reported"),
    (EventType.FIX_PUSHED, "fixed"),
    (EventType.FINDING_VERIFIED, "verified"),
    (EventType.FINDING_REJECTED, "rejected"),
)


class Told(NamedTuple):
    """A thread's state beside its messages."""

    title: str
    status: ThreadStatus
    reason: str
    last_seq: int
    participants: Sequence[Participant]


def open_items(messages: Iterable[Message]) -> tuple[OpenItem, ...]:
    """List the findings that are not verified, in the order in which they were first reported."""
    found: dict[str, OpenItem] = {}
    for message in messages:
        event = _event(message)
        if event is None or not event.finding:
            continue
        known = found.get(event.finding)
        if event.type == EventType.FINDING_VERIFIED:
            found.pop(event.finding, None)
        elif event.type == EventType.FINDING_REPORTED and known is None:
            found[event.finding] = OpenItem(
                finding_id=event.finding,
                message_id=message.message_id,
                reported_by=message.sender,
                state=EventType.FINDING_REPORTED,
                body=_excerpt(message.body),
            )
        elif known is not None:
            found[event.finding] = known.model_copy(update={"state": EventType(event.type)})
    return tuple(found.values())


def counts(messages: Iterable[Message]) -> dict[str, int]:
    """Count how many findings were reported, fixed, verified and rejected, each finding once per word."""
    seen: dict[str, set[str]] = {word: set() for _, word in _TOLD}
    words = {str(kind): word for kind, word in _TOLD}
    for message in messages:
        event = _event(message)
        if event is not None and event.type in words:
            seen[words[event.type]].add(event.finding or message.message_id)
    return {word: len(ids) for word, ids in seen.items()}


def text(told: Told, messages: Sequence[Message]) -> str:
    """Write the summary: status, findings, open ones with their message ids, last speakers, unread counts."""
    figures = counts(messages)
    items = open_items(messages)
    reason = f" ({told.reason})" if told.reason else ""
    lines = [
        f"“{told.title}” is {told.status}{reason}; {told.last_seq} messages, {len(messages)} of them read for this.",
        "Findings: " + ", ".join(f"{figures[word]} {word}" for _, word in _TOLD) + f", {len(items)} open.",
    ]
    lines += [
        f"Open: {item.finding_id} by {item.reported_by}, {item.state}, in {item.message_id}: {item.body}"
        for item in items[:_OPEN_LISTED]
    ]
    if len(items) > _OPEN_LISTED:
        lines.append(f"Open: {len(items) - _OPEN_LISTED} more.")
    if speakers := last_speakers(messages):
        lines.append("Last to speak: " + ", ".join(speakers) + ".")
    if unread := [f"{one.agent_id} {one.unread}" for one in told.participants if one.unread]:
        lines.append("Unread: " + ", ".join(unread) + ".")
    return "\n".join(lines)


def last_speakers(messages: Sequence[Message]) -> tuple[str, ...]:
    """Name who spoke last, each once, the latest first, at most five, with how often they spoke."""
    often = Counter(message.sender for message in messages if message.kind is not MessageKind.SYSTEM)
    latest = dict.fromkeys(message.sender for message in reversed(messages) if message.kind is not MessageKind.SYSTEM)
    return tuple(f"{name} ({often[name]})" for name in list(latest)[:_SPEAKERS])


def _event(message: Message) -> Event | None:
    return event_of(message.kind, message.metadata, in_reply_to=message.in_reply_to, message_id=message.message_id)


def _excerpt(body: str) -> str:
    line = " ".join(body.split())
    return line if len(line) <= _EXCERPT else line[: _EXCERPT - 1] + "…"
