"""How the nouns of waking lie in tables, alike for every store. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from orchestration.bridge.state import Session
from orchestration.bridge.store.rows import Found, Row, instant, text
from orchestration.bridge.wake.state import Attempt, Case, Claim, Code, Outcome, Status, Wake, Way
from orchestration.bridge.wake.trigger import of_unread
from orchestration.bridge.wire import ThreadStatus

MOST_PROMPT: Final = 8 * 1024
"""Bytes of prompts that are told together; the wire allows one as many."""
_BETWEEN: Final = "\n\n"


def _at(found: str | datetime | None) -> datetime | None:
    return None if found is None else instant(found)


def _text(at: datetime | None) -> str | None:
    return None if at is None else text(at)


def wake(row: Found, attempts: Sequence[Attempt] = ()) -> Wake:
    """Read a trigger with its state."""
    return Wake(
        trigger_id=row["trigger_id"],
        workspace_id=row["workspace_id"],
        thread_id=row["thread_id"],
        agent_id=row["agent_id"],
        reason=row["reason"],
        prompt=row["prompt"],
        requested_by=row["requested_by"],
        forced=bool(row["forced"]),
        status=Status(row["status"]),
        created_at=instant(row["created_at"]),
        due_at=instant(row["due_at"]),
        holder=row["holder"],
        fence=row["fence"],
        lease_until=_at(row["lease_until"]),
        deferred_at=_at(row["deferred_at"]),
        deferrals=row["deferrals"],
        renewed_at=_at(row["renewed_at"]),
        outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
        code=None if row["code"] is None else Code(row["code"]),
        detail=row["detail"],
        ended_at=_at(row["ended_at"]),
        attempts=tuple(attempts),
        traceparent=row["traceparent"],
    )


def together(leader: Wake, others: Sequence[Wake]) -> Wake:
    """Give a trigger as it is told with those taken into it: every prompt, and the first who asked for it in words."""
    asking = next((one for one in (leader, *others) if not of_unread(one)), leader)
    prompt = _BETWEEN.join(one.prompt for one in (leader, *others) if one.prompt)
    forced = any(one.forced for one in (leader, *others))
    return replace(leader, prompt=prompt, requested_by=asking.requested_by, reason=asking.reason, forced=forced)


def fitting(leader: Wake, known: Sequence[Wake], waiting: Sequence[Wake]) -> list[Wake]:
    """Return those of the line that can be told with a trigger: the first of them, while their prompts fit."""
    size = len(together(leader, known).prompt.encode())
    found: list[Wake] = []
    for one in waiting:
        size += len(one.prompt.encode()) + (len(_BETWEEN) if one.prompt else 0)
        if size > MOST_PROMPT:
            break
        found.append(one)
    return found


def attempt(row: Found) -> Attempt:
    """Read an attempt."""
    return Attempt(
        number=row["number"],
        way=Way(row["way"]),
        session_id=row["session_id"],
        holder=row["holder"],
        fence=row["fence"],
        cycle=row["cycle"],
        began_at=instant(row["began_at"]),
        cursor=row["read_seq"],
        ended_at=_at(row["ended_at"]),
        outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
        code=None if row["code"] is None else Code(row["code"]),
        detail=row["detail"],
    )


def attempt_row(claim: Claim, attempt: Attempt) -> Row:
    """Lay out an attempt that the holder of a claim makes."""
    return {
        "trigger_id": claim.trigger_id,
        "number": attempt.number,
        "way": attempt.way.value,
        "session_id": attempt.session_id,
        "holder": attempt.holder or claim.holder,
        "fence": attempt.fence or claim.fence,
        "cycle": attempt.cycle,
        "began_at": text(attempt.began_at),
        "read_seq": attempt.cursor,
        "ended_at": _text(attempt.ended_at),
        "outcome": None if attempt.outcome is None else attempt.outcome.value,
        "code": None if attempt.code is None else attempt.code.value,
        "detail": attempt.detail,
    }


def case(
    place: Found,
    *,
    sessions: Sequence[Session],
    wake: Wake | None,
    attempted: Sequence[datetime],
    failed: Sequence[datetime],
    paused: bool,
) -> Case:
    """Put a case together."""
    return Case(
        workspace_id=place["workspace_id"],
        thread_id=place["thread_id"],
        thread_status=ThreadStatus(place["status"]),
        status_reason=place["status_reason"],
        agent_id=place["agent_id"],
        takes_part=place["last_read_seq"] is not None,
        cursor=place["last_read_seq"] or 0,
        last_seq=place["last_seq"],
        unread=place["unread"],
        unread_since=_at(place["unread_since"]),
        unread_last=place["unread_last"] or 0,
        unread_last_at=_at(place["unread_last_at"]),
        sessions=tuple(sessions),
        wake=wake,
        attempted_at=tuple(attempted),
        failed_at=tuple(failed),
        paused=paused,
    )
