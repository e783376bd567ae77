"""How waking stands, from the triggers of a day and those that are open: what ticks judge by, what pages show. Pure.

`pulse/signs.py` and `pulse/wakes.py` read what is written here, by way of `wake/telling.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from orchestration.bridge.wake.state import Attempt, Code, Outcome, Status, Wake
from orchestration.store.instants import to_text

DAY: Final = timedelta(days=1)
COLLIDED_WITHIN: Final = timedelta(hours=1)
_MOST_LINES: Final = 20
_NO_RUNTIME: Final = frozenset({Code.RUNTIME_UNMANAGED, Code.RUNTIME_NOT_FOUND})
_OPEN: Final = frozenset({Status.QUEUED, Status.CLAIMED})


def is_open(wake: Wake) -> bool:
    """Say whether it is still to be woken for."""
    return wake.status in _OPEN


def runs(wake: Wake) -> bool:
    """Say whether an attempt has begun that has not ended: nothing waits meanwhile."""
    return is_open(wake) and any(one.ended_at is None for one in wake.attempts)


def signs(wakes: Sequence[Wake], now: datetime) -> dict[str, Any]:
    """Write what a tick judges by.

    Args:
        wakes: every open trigger, and those of the last day; newest first.
        now: aware UTC.
    """
    given_up = _unanswered(wakes, now)
    unmanaged = [one for one in given_up if one.code in _NO_RUNTIME]
    waiting = _oldest([one for one in wakes if is_open(one) and not runs(one)])
    collided = [
        (attempt, wake)
        for wake in wakes
        for attempt in wake.attempts
        if attempt.code is Code.DEFER_TIMEOUT and now - _end(attempt) <= COLLIDED_WITHIN
    ]
    first = min(collided, key=lambda one: _end(one[0]), default=None)
    dead, lone = _oldest(given_up, ended=True), _oldest(unmanaged, ended=True)
    return {
        "dead": len(given_up),
        "dead_since": dead and _text(dead.ended_at),
        "dead_trigger": dead and dead.trigger_id,
        "waiting": sum(map(is_open, wakes)),
        "waiting_since": waiting and to_text(waiting.created_at),
        "waiting_agent": waiting and waiting.agent_id,
        "unmanaged": len(unmanaged),
        "unmanaged_since": lone and _text(lone.ended_at),
        "unmanaged_agent": lone and lone.agent_id,
        "collided": len(collided),
        "collided_since": first and to_text(_end(first[0])),
        "collided_agent": first and first[1].agent_id,
    }


def shown(wakes: Sequence[Wake], now: datetime) -> dict[str, Any]:
    """Write what the page shows: how far the last day's triggers came, and the newest of them."""
    recent = [one for one in wakes if now - one.created_at <= DAY]
    ended = {outcome: sum(one.outcome is outcome and not is_open(one) for one in recent) for outcome in Outcome}
    return {
        "funnel": {
            "made": len(recent),
            "attempted": sum(bool(one.attempts) for one in recent),
            "triggered": ended[Outcome.TRIGGERED],
            "fallback_resumed": ended[Outcome.FALLBACK_RESUMED],
            "fallback_spawned": ended[Outcome.FALLBACK_SPAWNED],
            "already_active": ended[Outcome.ALREADY_ACTIVE],
            "dead_lettered": sum(one.status is Status.DEAD_LETTERED for one in recent),
            "cancelled": sum(one.status is Status.CANCELLED for one in recent),
            "open": sum(map(is_open, recent)),
        },
        "open": sum(map(is_open, wakes)),
        "triggers": [_line(one) for one in sorted(wakes, key=_rank)[:_MOST_LINES]],
    }


def _unanswered(wakes: Sequence[Wake], now: datetime) -> list[Wake]:
    """Return what was given up within a day, unless a later trigger of the same case came to something or is under way."""
    answered: set[tuple[str, str]] = set()
    found = []
    for one in wakes:  # newest first
        case = (one.thread_id, one.agent_id)
        if one.status is not Status.DEAD_LETTERED:
            answered.add(case)
        elif case not in answered and one.ended_at is not None and now - one.ended_at <= DAY:
            found.append(one)
            answered.add(case)
    return found


def _rank(one: Wake) -> tuple[bool, float]:
    return not is_open(one), -one.created_at.timestamp()


def _line(one: Wake) -> dict[str, Any]:
    return {
        "trigger_id": one.trigger_id,
        "thread_id": one.thread_id,
        "agent_id": one.agent_id,
        "status": one.status.value,
        "outcome": one.outcome and one.outcome.value,
        "code": one.code and one.code.value,
        "attempts": sum(attempt.outcome is not Outcome.DEFERRED for attempt in one.attempts),
        "deferrals": one.deferrals,
        "created_at": to_text(one.created_at),
        "ended_at": _text(one.ended_at),
    }


def _oldest(wakes: Iterable[Wake], *, ended: bool = False) -> Wake | None:
    return min(wakes, key=lambda one: one.ended_at or one.created_at if ended else one.created_at, default=None)


def _end(attempt: Attempt) -> datetime:
    return attempt.ended_at or attempt.began_at


def _text(at: datetime | None) -> str | None:
    return None if at is None else to_text(at)
