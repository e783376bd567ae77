"""The lifecycle of a cycle, over the full product of its states and events."""

from __future__ import annotations

from itertools import product

import pytest

from orchestration.cycles.cycle import ACTIVE, FINISHED, TRANSITIONS, CycleEvent, CycleNumber, CycleState, after, folder_name

ALLOWED = {
    ("queued", "claim"): "running",
    ("queued", "cancel"): "cancelled",
    ("running", "succeed"): "succeeded",
    ("running", "fail"): "failed",
    ("running", "time_out"): "timed_out",
    ("running", "cancel"): "cancelled",
    ("running", "lose"): "lost",
}


@pytest.mark.parametrize(("state", "event"), list(product(CycleState, CycleEvent)))
def test_every_pair_of_state_and_event_does_what_the_design_says(state: CycleState, event: CycleEvent) -> None:
    assert after(state, event) == ALLOWED.get((state.value, event.value))


def test_nothing_leaves_a_finished_state() -> None:
    assert not {state for state, _ in TRANSITIONS} & FINISHED


def test_every_state_is_either_active_or_finished() -> None:
    assert set(CycleState) == ACTIVE | FINISHED
    assert not ACTIVE & FINISHED


def test_every_state_can_be_reached() -> None:
    assert set(TRANSITIONS.values()) | {CycleState.QUEUED} == set(CycleState)


def test_folders_sort_like_their_numbers() -> None:
    assert [folder_name(CycleNumber(number)) for number in (1, 42, 99999)] == ["cycle_00001", "cycle_00042", "cycle_99999"]
