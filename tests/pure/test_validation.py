"""Whether a version of the baseline was for the better: the exact edges, and that like is compared with like."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.baseline.validation import Limits, Result, asking, compare, hindrance, standing
from orchestration.baseline.version import Kind

LIMITS = Limits(keep_at=0.02, roll_back_below=-0.05, results=3)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TYPES = st.sampled_from(("", "LIGHT", "DEEP", "REM"))


def results(*values: float, first: int = 1, phase_type: str = "", measure: str = "score") -> list[Result]:
    return [Result(cycle=first + n, phase_type=phase_type, measure=measure, value=value) for n, value in enumerate(values)]


def verdict(before: list[Result], after: list[Result], *, number: int = 3) -> str:
    return standing(compare(before, after, results=number), LIMITS) or "undecided"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((100, 100, 100), (102, 102, 102), "kept"),
        ((0.1, 0.1, 0.1), (0.102, 0.102, 0.102), "kept"),  # 0.019999999999999879 in binary
        ((0.1, 0.1, 0.1), (math.nextafter(0.102, 0),) * 3, "neutral"),
        ((100, 100, 100), (101.99, 101.99, 101.99), "neutral"),
        ((100, 100, 100), (95, 95, 95), "neutral"),
        ((0.1, 0.1, 0.1), (0.095, 0.095, 0.095), "neutral"),
        ((0.1, 0.1, 0.1), (math.nextafter(0.095, 0),) * 3, "worse"),
        ((100, 100, 100), (94.99, 94.99, 94.99), "worse"),
        ((100, 0, 100), (100, 0, 100), "neutral"),  # one outlier on each side is outvoted
        ((100, 100, 100), (0, 0, 100), "worse"),
        ((100, 100, 100), (0, 100, 100), "neutral"),
        ((100, 100), (0, 0), "undecided"),
        ((100, 100), (0, 0, 0), "undecided"),
        ((100, 100, 100), (0, 0), "undecided"),
        ((), (), "undecided"),
        ((100, 100, 100), (), "undecided"),
        ((), (100, 100, 100), "undecided"),
        ((-100, -100, -100), (-98, -98, -98), "kept"),  # less bad is better
        ((-100, -100, -100), (-105, -105, -105), "neutral"),
        ((-100, -100, -100), (-105.01, -105.01, -105.01), "worse"),
        ((-1, -1, -1), (1, 1, 1), "kept"),
        ((0, 0, 0), (0, 0, 0), "neutral"),
        ((0, 0, 0), (-1, -1, -1), "undecided"),  # nothing is relative to 0
        ((0, 0, 0), (1, 1, 1), "undecided"),
        ((-0.0, 0.0, -0.0), (0, 0, 0), "neutral"),
        ((1e308, 1e308, 1e308), (-1e308, -1e308, -1e308), "worse"),
        ((5e-324, 5e-324, 5e-324), (1e308, 1e308, 1e308), "kept"),
    ],
)
def test_the_edges(before: tuple[float, ...], after: tuple[float, ...], expected: str) -> None:
    assert verdict(results(*before), results(*after, first=10)) == expected


def test_of_each_side_the_newest_count_and_as_many() -> None:
    found = compare(results(1, 1, 50, 100, 100), results(90, 90, 80, first=10), results=3)
    assert [one.value for one in found.before] == [50, 100, 100]
    assert [one.value for one in found.after] == [90, 90, 80]
    assert found.change == Fraction(-1, 10)
    assert found.numbers == "-10 % in the median of 3 PHASEs, by score"


def test_another_measure_is_never_compared() -> None:
    before = results(1, 1, 1, measure="pass rate of unit")
    assert verdict(before, results(0, 0, 0, first=10)) == "undecided"
    mixed = [*before, *results(7, 7, 7, first=5)]
    assert verdict(mixed, results(0, 0, 0, first=10, measure="pass rate of unit")) == "worse"
    assert verdict(mixed, results(7, 7, 7, first=10)) == "neutral"


def test_each_type_is_set_against_its_own_level() -> None:
    levels = {"LIGHT": 1.0, "DEEP": 0.5, "REM": 0.8}
    before = [one for n, (t, v) in enumerate(levels.items()) for one in results(v, first=n, phase_type=t)]
    same = [one for n, (t, v) in enumerate(levels.items()) for one in results(v, first=10 + n, phase_type=t)]
    deep = results(0.5, 0.5, 0.5, first=10, phase_type="DEEP")
    assert verdict(before, same) == "neutral"
    assert verdict(before, deep) == "undecided", "three thorough PHASEs are no worse than three of which two were quick"
    fallen = [one for n, (t, v) in enumerate(levels.items()) for one in results(v * 0.9, first=10 + n, phase_type=t)]
    assert compare(before, fallen, results=3).change == Fraction(-1, 10)
    one_outlier = [*fallen[:1], *same[1:]]
    assert verdict(before, one_outlier) == "neutral"


def test_no_single_result_before_stands_against_many_after() -> None:
    before = [*results(200, phase_type="LIGHT"), *results(100, 100, first=2, phase_type="DEEP")]
    after = [*results(100, 100, first=10, phase_type="LIGHT"), *results(100, first=12, phase_type="DEEP")]
    assert verdict(before, after) == "undecided"


def test_a_type_whose_level_is_zero_says_nothing() -> None:
    before = [*results(0, 0, phase_type="LIGHT"), *results(1, 1, 1, first=3, phase_type="DEEP")]
    after = [*results(9, 9, first=10, phase_type="LIGHT"), *results(1, 1, first=12, phase_type="DEEP")]
    assert verdict(before, after) == "undecided"
    assert verdict(before, [*after, *results(1, first=14, phase_type="DEEP")]) == "neutral"


def test_what_forbids_a_rollback() -> None:
    assert hindrance(version=4, in_force=4) == ""
    assert "version 5 is in force" in hindrance(version=4, in_force=5)
    assert "no version before the first" in hindrance(version=1, in_force=1)


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("kind", Kind)
def test_when_a_person_decides(kind: Kind, automatic: bool) -> None:
    assert (asking(kind, automatic=automatic) == "") == (automatic and kind is not Kind.ROLLBACK)


RESULTS = st.lists(st.tuples(TYPES, st.sampled_from(("score", "pass rate of a")), FINITE), max_size=12)


def made(given: list[tuple[str, str, float]], first: int) -> list[Result]:
    return [
        Result(cycle=first + n, phase_type=phase_type, measure=measure, value=value)
        for n, (phase_type, measure, value) in enumerate(given)
    ]


@given(before=RESULTS, after=RESULTS, number=st.integers(3, 5))
def test_whatever_is_compared_is_like_with_like(
    before: list[tuple[str, str, float]], after: list[tuple[str, str, float]], number: int
) -> None:
    found = compare(made(before, 1), made(after, 100), results=number)
    assert sorted(one.phase_type for one in found.before) == sorted(one.phase_type for one in found.after)
    assert len({one.measure for one in (*found.before, *found.after)}) <= 1
    assert (found.change is None) == (len(found.after) < number)
    assert {one.cycle for one in found.after} <= set(range(100, 100 + len(after)))
    assert found.relative is None or math.isfinite(found.relative)
    assert found.numbers
    standing(found, LIMITS)


@given(before=st.lists(FINITE, min_size=3, max_size=3), after=st.lists(FINITE, min_size=3, max_size=3))
def test_with_one_type_it_is_the_change_of_the_median(before: list[float], after: list[float]) -> None:
    found = compare(results(*before), results(*after, first=10), results=3)
    level = Fraction(repr(float(median(before))))
    if level:
        assert found.change == (Fraction(repr(float(median(after)))) - level) / abs(level)


@given(values=st.lists(st.floats(-1e9, 1e9).filter(bool), min_size=3, max_size=9), factor=st.floats(0.01, 0.9))
def test_the_same_results_are_neutral_and_a_fall_of_all_is_never_kept(values: list[float], factor: float) -> None:
    assert verdict(results(*values), results(*values, first=20)) == "neutral"
    fallen = [min(value * factor, value / factor) for value in values]
    assert verdict(results(*values), results(*fallen, first=20)) != "kept"
