"""The lifecycle of a trigger, over the full product of its statuses and events; what counts of its attempts."""

from __future__ import annotations

from itertools import product

import pytest

from orchestration.bridge.wake.state import Outcome, Status
from orchestration.bridge.wake.trigger import (
    ENDED,
    OPEN,
    SUPERVISOR,
    TRANSITIONS,
    Event,
    after,
    counted,
    in_flight,
    next_number,
    of_unread,
)
from tests.pure.waking import ago, attempt, failed, wake

ALLOWED = {
    ("queued", "claim"): "claimed",
    ("claimed", "claim"): "claimed",
    ("claimed", "release"): "queued",
    ("claimed", "finish"): "done",
    ("claimed", "give_up"): "dead_lettered",
    ("queued", "cancel"): "cancelled",
    ("claimed", "cancel"): "cancelled",
    ("queued", "retry"): "queued",
    ("dead_lettered", "retry"): "queued",
    ("cancelled", "retry"): "queued",
}


@pytest.mark.parametrize(("status", "event"), list(product(Status, Event)))
def test_every_pair_of_status_and_event_does_what_the_page_says(status: Status, event: Event) -> None:
    assert after(status, event) == ALLOWED.get((status.value, event.value))


def test_only_an_operators_retry_leaves_an_ended_status() -> None:
    assert {event for status, event in TRANSITIONS if status in ENDED} == {Event.RETRY}


def test_who_was_woken_is_not_woken_by_the_same_trigger_again() -> None:
    assert not [event for event in Event if after(Status.DONE, event)]


def test_every_status_is_open_or_ended_and_can_be_reached() -> None:
    assert set(Status) == OPEN | ENDED
    assert not OPEN & ENDED
    assert set(TRANSITIONS.values()) == set(Status)


def test_a_deferral_is_a_row_and_no_attempt() -> None:
    deferral = attempt(1, outcome=Outcome.DEFERRED, ended_at=ago(4))
    made = wake(attempts=(deferral, failed(2)))
    assert [one.number for one in counted(made)] == [2]
    assert in_flight(made) is None
    assert next_number(made) == 3


def test_attempts_from_before_a_retry_count_no_more_and_numbers_go_on() -> None:
    made = wake(attempts=(failed(1, began_at=ago(100)), failed(2, began_at=ago(20))), renewed_at=ago(50))
    assert [one.number for one in counted(made)] == [2]
    assert next_number(made) == 3


def test_the_attempt_in_flight_is_the_one_without_an_end() -> None:
    assert in_flight(wake(attempts=(failed(1), attempt(2)))) == attempt(2)
    assert in_flight(wake()) is None
    assert next_number(wake()) == 1


def test_no_agent_can_ask_in_the_supervisors_name() -> None:
    assert of_unread(wake())
    assert not of_unread(wake(requested_by="reviewer"))
    assert not SUPERVISOR[0].isalnum()  # an agent's name begins so
