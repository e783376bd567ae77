"""When a fitness is better, worse or neither: the exact edges."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.promotions.judgement import Standing, fitness_of, judge, judge_runs, relative_gain

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def standing(old: float, new: float, *, accept_at: float = 0.02, reject_below: float = -0.05) -> str:
    return judge(old, new, accept_at=accept_at, reject_below=reject_below).standing


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (100.0, 102.0, "better"),
        (0.1, 0.102, "better"),  # 0.019999999999999879 in binary
        (0.1, math.nextafter(0.102, 0), "neutral"),
        (0.7, 0.714, "better"),
        (100.0, 101.99, "neutral"),
        (100.0, 100.0, "neutral"),
        (100.0, 95.0, "neutral"),
        (0.1, 0.095, "neutral"),
        (0.1, math.nextafter(0.095, 0), "worse"),
        (100.0, 94.99, "worse"),
        (-100.0, -98.0, "better"),
        (-100.0, -98.01, "neutral"),
        (-100.0, -105.0, "neutral"),
        (-100.0, -105.01, "worse"),
        (-1.0, 0.0, "better"),
        (0.0, 5e-324, "better"),
        (0.0, 0.0, "neutral"),
        (0.0, -0.0, "neutral"),
        (-0.0, -1e-9, "worse"),
        (1e308, -1e308, "worse"),
        (-1e308, 1e308, "better"),
    ],
)
def test_the_edges(old: float, new: float, expected: str) -> None:
    assert standing(old, new) == expected


def test_with_both_limits_at_zero_an_equal_fitness_is_accepted() -> None:
    assert standing(1.0, 1.0, accept_at=0.0, reject_below=0.0) == "better"
    assert standing(0.0, 0.0, accept_at=0.0, reject_below=0.0) == "better"


def test_only_the_better_is_accepted_and_the_reason_tells_both_numbers_and_the_limit() -> None:
    better = judge(0.8, 0.9, accept_at=0.02, reject_below=-0.05)
    neutral = judge(0.8, 0.8, accept_at=0.02, reject_below=-0.05)
    worse = judge(0.8, 0.4, accept_at=0.02, reject_below=-0.05)

    assert [one.accepted for one in (better, neutral, worse)] == [True, False, False]
    assert better.reason == "better: fitness 0.9 against the baseline's 0.8, +12.5 %"
    assert neutral.reason == "neutral: fitness 0.8 against the baseline's 0.8, +0 %; accepted from +2 %"
    assert worse.reason == "worse: fitness 0.4 against the baseline's 0.8, -50 %; rejected below -5 %"


def test_medians_are_compared_not_means() -> None:
    judged = judge_runs([1.0, 1.0, 99.0], [1.1, 1.1, -99.0], accept_at=0.02, reject_below=-0.05)

    assert judged.standing is Standing.BETTER
    assert judged.fitness == 1.1


@given(FINITE, FINITE)
def test_any_two_numbers_can_be_judged_and_a_higher_one_is_never_worse(old: float, new: float) -> None:
    judged = judge(old, new, accept_at=0.02, reject_below=-0.05)

    assert judged.reason
    if new >= old:
        assert judged.standing is not Standing.WORSE
    if new <= old:
        assert judged.standing is not Standing.BETTER


@given(FINITE, FINITE, FINITE)
def test_the_gain_grows_with_the_fitness(old: float, new: float, newer: float) -> None:
    low, high = sorted((new, newer))

    assert relative_gain(old, low) <= relative_gain(old, high)


@pytest.mark.parametrize(
    ("output", "fitness"),
    [
        ("0.5", 0.5),
        ("epoch 1\nepoch 2\n0.75\n\n", 0.75),
        ('{"fitness": 3, "loss": 1}\n', 3.0),
        ("-2", -2.0),
        ("1e-3\r\n", 0.001),
    ],
)
def test_the_last_line_is_the_fitness(output: str, fitness: float) -> None:
    assert fitness_of(output) == fitness


@pytest.mark.parametrize(
    "output",
    [
        "",
        " \n",
        "accuracy 0.5",
        "0.5\ndone",
        "NaN",
        "Infinity",
        "1e999",
        "true",
        "[1]",
        '{"loss": 1}',
        "9" * 400,
        "[" * 9999,
    ],
)
def test_garbage_is_no_fitness(output: str) -> None:
    with pytest.raises(ValueError, match=r"it printed nothing|its last line is no finite fitness"):
        fitness_of(output)
