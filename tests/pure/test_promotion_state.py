"""The life of a promotion, over the full product of states and events."""

from __future__ import annotations

from itertools import product

import pytest

from orchestration.promotions.state import TRANSITIONS, PromotionEvent, PromotionState, after, failed

ALLOWED = {
    ("unacked", "accept"): "accepted",
    ("unacked", "reject"): "rejected",
    ("unacked", "fail"): "unacked",
    ("unacked", "park"): "parked",
    ("parked", "retry"): "unacked",
    ("parked", "reject"): "rejected",
    ("accepted", "reopen"): "unacked",
    ("rejected", "reopen"): "unacked",
}


@pytest.mark.parametrize(("state", "event"), list(product(PromotionState, PromotionEvent)))
def test_every_state_and_event(state: PromotionState, event: PromotionEvent) -> None:
    assert after(state, event) == ALLOWED.get((state.value, event.value))


def test_the_table_can_not_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[PromotionState.PARKED, PromotionEvent.ACCEPT] = PromotionState.ACCEPTED  # type: ignore[index]  # the point of the test


@pytest.mark.parametrize(
    ("before", "limit", "event"), [(0, 5, "fail"), (3, 5, "fail"), (4, 5, "park"), (9, 5, "park"), (0, 1, "park")]
)
def test_the_last_failure_parks(before: int, limit: int, event: str) -> None:
    assert failed(before, park_after=limit) == event
