"""The life of a trigger, as one table.

    queued ──claim──► claimed ──release──► queued
    claimed ──claim──► claimed, by another supervisor whose fence is higher, once the lease has ended
    claimed ──finish──► done          claimed ──give_up──► dead_lettered
    queued, claimed ──cancel──► cancelled
    dead_lettered, cancelled ──retry──► queued, queued ──retry──► queued (due at once)

Only an operator retries, and only what did not wake anybody; whoever is to be woken again after `done` gets a new trigger.

Pure. Refuses to know how a trigger is kept, and who holds it (`policy.py` says what to do with one).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from orchestration.bridge.wake.state import Attempt, Code, Outcome, Status, Wake, Way

SUPERVISOR: Final = "(supervisor)"
"""Who asked for a trigger that was made of unread messages; no agent has such a name."""


class Event(StrEnum):
    """What can happen to a trigger."""

    CLAIM = "claim"
    RELEASE = "release"
    FINISH = "finish"
    GIVE_UP = "give_up"
    CANCEL = "cancel"
    RETRY = "retry"


_S, _E = Status, Event

TRANSITIONS: Final[Mapping[tuple[Status, Event], Status]] = MappingProxyType(
    {
        (_S.QUEUED, _E.CLAIM): _S.CLAIMED,
        (_S.CLAIMED, _E.CLAIM): _S.CLAIMED,
        (_S.CLAIMED, _E.RELEASE): _S.QUEUED,
        (_S.CLAIMED, _E.FINISH): _S.DONE,
        (_S.CLAIMED, _E.GIVE_UP): _S.DEAD_LETTERED,
        (_S.QUEUED, _E.CANCEL): _S.CANCELLED,
        (_S.CLAIMED, _E.CANCEL): _S.CANCELLED,
        (_S.QUEUED, _E.RETRY): _S.QUEUED,
        (_S.DEAD_LETTERED, _E.RETRY): _S.QUEUED,
        (_S.CANCELLED, _E.RETRY): _S.QUEUED,
    }
)

OPEN: Final = frozenset({Status.QUEUED, Status.CLAIMED})
ENDED: Final = frozenset(Status) - OPEN


def after(status: Status, event: Event) -> Status | None:
    """Return the status that follows, or None when the event can't happen to such a trigger."""
    return TRANSITIONS.get((status, event))


def of_unread(wake: Wake) -> bool:
    """Say whether a trigger was made of unread messages, so that reading them is all it is for."""
    return wake.requested_by == SUPERVISOR


def counted(wake: Wake) -> tuple[Attempt, ...]:
    """Return the attempts that count, in order: no deferrals, and nothing from before an operator's retry."""
    renewed = wake.renewed_at
    return tuple(
        sorted(
            (
                one
                for one in wake.attempts
                if one.outcome is not Outcome.DEFERRED and (renewed is None or one.began_at >= renewed)
            ),
            key=lambda one: one.number,
        )
    )


def in_flight(wake: Wake) -> Attempt | None:
    """Return the attempt that was begun and has no end yet, whoever began it."""
    return next((one for one in reversed(wake.attempts) if one.outcome is None), None)


def next_number(wake: Wake) -> int:
    """Return the number of the next row of an attempt."""
    return max((one.number for one in wake.attempts), default=0) + 1


def leaves_a_session(attempt: Attempt) -> bool:
    """Say whether an ended attempt was a turn of a session that can be gone on with, whatever its end."""
    turn = attempt.way is not Way.LIVE and attempt.ended_at is not None
    return turn and bool(attempt.session_id) and attempt.code is not Code.RUNTIME_NOT_FOUND
