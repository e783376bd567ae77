"""The loop's rules: statuses over every state a cycle can have, streaks, goals and waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cycles.backoff import Backoff
from orchestration.cycles.cycle import FINISHED, Cause, Cycle, CycleNumber, CycleState, JobName, Origin, Result
from orchestration.loop.iteration import status_of, without_archive
from orchestration.loop.schedule import Pace, goals_of, next_goal, words_of
from orchestration.loop.status import FAILURES, Status

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)
STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30))
S, D = Status.SUCCESS, Status.DEGRADED


def ended(state: CycleState, *, not_started: bool = False) -> Cycle:
    result = Result(reason="test", not_started=not_started)
    origin = Origin(Cause.LOOP, "loop-1")
    return Cycle(
        CycleNumber(1), JobName.LOOP, state, "t", origin, ("true",), "", timedelta(1), None, NOW, NOW, NOW, None, None, None,
        result,
    )  # fmt: skip


@pytest.mark.parametrize("state", list(CycleState))
@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("expected", [True, False])
def test_only_a_cycle_that_succeeded_can_be_called_good(state: CycleState, new: bool, expected: bool) -> None:
    if state not in FINISHED:
        with pytest.raises(ValueError, match="has not finished"):
            status_of(ended(state), archive_new=new, archive_expected=expected)
        return
    status = status_of(ended(state), archive_new=new, archive_expected=expected)
    assert (status in (S, D)) == (state is CycleState.SUCCEEDED)
    assert (status is D) == (state is CycleState.SUCCEEDED and expected and not new)
    assert (status in FAILURES) == (state in (CycleState.FAILED, CycleState.TIMED_OUT, CycleState.LOST))


def test_what_was_not_started_is_no_failed_run() -> None:
    cycle = ended(CycleState.FAILED, not_started=True)
    assert status_of(cycle, archive_new=False, archive_expected=True) is Status.NOT_STARTED


def test_iterations_whose_command_was_not_run_say_nothing_of_archives() -> None:
    assert without_archive([False, None, False, True, False]) == 2
    assert without_archive([None, True]) == 0


def pace(**changes: Any) -> Pace:
    return Pace(timedelta(0), Backoff(STEPS), timedelta(minutes=30), 0.0, 0)._replace(**changes)


@given(failures=st.integers(0, 50), jitter=st.floats(0, 1), seed=st.integers(), iteration=st.integers(1, 10**6))
def test_a_wait_is_its_step_and_a_part_of_it_within_the_longest(
    failures: int, jitter: float, seed: int, iteration: int
) -> None:
    step = Backoff(STEPS).after(failures)
    wait = pace(jitter=jitter, seed=seed).after(failures, iteration=iteration)
    assert step <= wait <= min(step * (1 + jitter), timedelta(minutes=30)) + timedelta(microseconds=1)


def test_a_longer_sleep_counts_instead() -> None:
    assert pace(sleep=timedelta(minutes=7)).after(2, iteration=1) == timedelta(minutes=7)
    assert pace(sleep=timedelta(hours=1)).after(4, iteration=1) == timedelta(hours=1)


@pytest.mark.parametrize(
    ("ended_minutes_ago", "wait", "longest", "left"),
    [(1, 5, 30, 4), (6, 5, 30, None), (1, 5, 3, 2), (1, 5, 0, None), (-60, 5, 30, None)],
)
def test_a_resumed_wait_is_what_is_left_of_it(ended_minutes_ago: int, wait: int, longest: int, left: int | None) -> None:
    ended_at = NOW - timedelta(minutes=ended_minutes_ago)
    resumed = pace(longest=timedelta(minutes=longest)).resumed(ended_at, ended_at + timedelta(minutes=wait), now=NOW)
    assert resumed == (None if left is None else NOW + timedelta(minutes=left))


@given(st.text(), st.text())
def test_mode_and_goal_stay_one_word_each_whatever_they_hold(mode: str, goal: str) -> None:
    words = words_of(("{mode}", "-g={goal}", "{goal}{mode}"), mode=mode, goal=goal)
    assert words == (mode, f"-g={goal}", goal + mode)


@given(goals=st.lists(st.text(min_size=1), min_size=1), iteration=st.integers(1, 10**6), seed=st.integers())
def test_every_goal_is_one_of_those_there_are(goals: list[str], iteration: int, seed: int) -> None:
    assert next_goal(goals, iteration=iteration, order="random", seed=seed) in goals
    assert next_goal(goals, iteration=iteration, order="turn", seed=seed) == goals[(iteration - 1) % len(goals)]


def test_no_goals_are_an_empty_goal_and_comments_none() -> None:
    assert next_goal((), iteration=1, order="turn", seed=0) == ""
    assert goals_of("a\n\n # b\n c \n") == ("a", "c")
