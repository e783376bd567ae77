"""Waiting after failures: the steps, the repeat of the last, and clocks that jump."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cycles.backoff import NO_FAILURES, Backoff, Failures

MINUTES = Backoff(tuple(timedelta(minutes=m) for m in (1, 5, 15, 30)))
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(("failures", "minutes"), [(0, 0), (1, 1), (2, 5), (3, 15), (4, 30), (5, 30), (500, 30)])
def test_the_last_step_repeats(failures: int, minutes: int) -> None:
    assert MINUTES.after(failures) == timedelta(minutes=minutes)


def test_no_failures_no_wait() -> None:
    assert MINUTES.until(NO_FAILURES, NOON) is None


def test_no_steps_no_wait() -> None:
    assert Backoff(()).until(Failures(3, NOON), NOON) is None


def test_it_may_be_tried_again_at_the_very_instant_the_wait_ends() -> None:
    failed = Failures(2, NOON)
    assert MINUTES.until(failed, NOON + timedelta(minutes=5) - timedelta(microseconds=1)) == NOON + timedelta(minutes=5)
    assert MINUTES.until(failed, NOON + timedelta(minutes=5)) is None


def test_a_failure_from_the_future_holds_nothing_up() -> None:
    assert MINUTES.until(Failures(4, NOON + timedelta(days=1)), NOON) is None


@given(
    failures=st.integers(min_value=0, max_value=1000),
    ago=st.timedeltas(min_value=timedelta(days=-2), max_value=timedelta(days=2)),
)
def test_a_wait_ends_in_the_future_and_never_later_than_the_longest_step(failures: int, ago: timedelta) -> None:
    until = MINUTES.until(Failures(failures, NOON - ago), NOON)
    assert until is None or NOON < until <= NOON + timedelta(minutes=30)
