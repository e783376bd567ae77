"""The life of a promotion, as one table.

    unacked ──accept──► accepted          unacked ──fail──► unacked (counted)
    unacked ──reject──► rejected          unacked ──park──► parked ──retry──► unacked
    parked ──reject──► rejected           accepted, rejected ──reopen──► unacked

The ack file is the truth about `accepted` and `rejected`; the store remembers the state for people and for
counting. `reopen` is what happened when somebody removed the ack file: a promotion without an ack is unacked,
whatever we remember.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType


class PromotionState(StrEnum):
    """Where a promotion stands; the value is what the store holds."""

    UNACKED = "unacked"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    PARKED = "parked"


class PromotionEvent(StrEnum):
    """What can happen to a promotion."""

    ACCEPT = "accept"
    REJECT = "reject"
    FAIL = "fail"  # a cycle with it failed or was lost
    PARK = "park"  # that was the last failure we put up with
    RETRY = "retry"  # a person says: try again
    REOPEN = "reopen"  # its ack file is gone


_S, _E = PromotionState, PromotionEvent

TRANSITIONS = MappingProxyType(
    {
        (_S.UNACKED, _E.ACCEPT): _S.ACCEPTED,
        (_S.UNACKED, _E.REJECT): _S.REJECTED,
        (_S.UNACKED, _E.FAIL): _S.UNACKED,
        (_S.UNACKED, _E.PARK): _S.PARKED,
        (_S.PARKED, _E.RETRY): _S.UNACKED,
        (_S.PARKED, _E.REJECT): _S.REJECTED,
        (_S.ACCEPTED, _E.REOPEN): _S.UNACKED,
        (_S.REJECTED, _E.REOPEN): _S.UNACKED,
    }
)


def after(state: PromotionState, event: PromotionEvent) -> PromotionState | None:
    """Return the state that follows, or None when the event means nothing in this state."""
    return TRANSITIONS.get((state, event))


def failed(failures_before: int, *, park_after: int) -> PromotionEvent:
    """Say whether one more failed cycle is a plain failure or parks the promotion (`park_after` ≥ 1 in a row)."""
    return PromotionEvent.PARK if failures_before + 1 >= park_after else PromotionEvent.FAIL


class AckVerdict(StrEnum):
    """How a promotion was answered, as the metric names it."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    INVALID = "invalid"  # no promotion by its form: rejected without a cycle
