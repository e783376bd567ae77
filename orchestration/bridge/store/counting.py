"""How a store counts all its threads; the same for SQLite and PostgreSQL but for the words of one query."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final

from orchestration.bridge.census import (
    MOST_SHOWN,
    MOST_WAITING,
    Census,
    Seat,
    Sort,
    Standing,
    Tally,
    Waits,
    sort_of,
)
from orchestration.bridge.store import rows
from orchestration.bridge.wire import Participant, ThreadStatus

Ask = Callable[..., Awaitable[list[Any]]]
"""Asks a named query with its parameters."""
_TOGETHER: Final = 200
_MOST_MESSAGES: Final = 20_000
"""Messages that one query counts, so that a connection is soon free again."""


async def census(ask: Ask, participants: Callable[[str], Awaitable[tuple[Participant, ...]]], now: datetime) -> Census:
    """Look at all threads."""
    standing = await ask("census.threads")
    behind = await ask("census.unread") if standing else []
    waiting = await ask("census.waiting", limit=MOST_WAITING) if behind else []
    shown = await ask("census.shown", limit=MOST_SHOWN) if standing else []
    return Census(
        at=now,
        threads={ThreadStatus(row["status"]): int(row["threads"]) for row in standing},
        since={ThreadStatus(row["status"]): rows.instant(row["since"]) for row in standing},
        unread={ThreadStatus(row["status"]): int(row["messages"]) for row in behind},
        waits=tuple(map(_waits, waiting)),
        shown=tuple([_standing(row, await participants(row["thread_id"])) for row in shown]),
    )


async def count(ask: Ask, query: str, tally: Tally) -> None:
    """Bring a tally up to the store."""
    lengths = {str(row["thread_id"]): int(row["last_seq"]) for row in await ask("census.lengths")}
    part: list[tuple[str, int, int]] = []
    messages = 0
    for name, start, end in tally.stretches(lengths):
        while start < end:
            stop = min(end, start + _MOST_MESSAGES - messages)
            part.append((name, start, stop))
            messages += stop - start
            start = stop
            if messages >= _MOST_MESSAGES or len(part) >= _TOGETHER:
                tally.add(part, await _found(ask, query, part))
                part, messages = [], 0
    if part:
        tally.add(part, await _found(ask, query, part))


async def _found(ask: Ask, query: str, stretches: list[tuple[str, int, int]]) -> Mapping[Sort, int]:
    found: dict[Sort, int] = {}
    for row in await ask(query, stretches=rows.written(stretches)):
        told = {name: row[name] for name in ("kind", "event_type", "status", "sender", "reason")}
        sort = sort_of(**told)
        found[sort] = found.get(sort, 0) + int(row["messages"])
    return found


def _waits(row: rows.Found) -> Waits:
    return Waits(
        thread_id=row["thread_id"],
        status=ThreadStatus(row["status"]),
        agent_id=row["agent_id"],
        sender=row["sender"],
        since=rows.instant(row["since"]),
        traceparent=row["traceparent"],
    )


def _standing(row: rows.Found, participants: tuple[Participant, ...]) -> Standing:
    thread = rows.thread(row)
    return Standing(
        thread_id=thread.thread_id,
        workspace_id=thread.workspace_id,
        title=thread.title,
        status=thread.status,
        reason=thread.status_reason,
        last_seq=thread.last_seq,
        updated_at=thread.updated_at,
        seats=tuple(
            Seat(
                agent_id=one.agent_id,
                last_read_seq=one.last_read_seq,
                unread=one.unread,
                heartbeat_at=one.last_heartbeat_at,
                session=one.session_status,
            )
            for one in participants
        ),
    )
