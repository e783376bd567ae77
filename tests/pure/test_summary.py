"""Figures over cycles: what is missing is left out and never counted as 0; nothing hostile breaks them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cycles.cycle import FINISHED, CycleState
from orchestration.pulse.summary import Ended, summarise, totals_of

S, F, C, LOST = CycleState.SUCCEEDED, CycleState.FAILED, CycleState.CANCELLED, CycleState.LOST


def ended(state: CycleState = S, seconds: float | None = None, series: Mapping[str, float] | None = None) -> Ended:
    return Ended(state, seconds, series or {})


def test_nothing_has_no_figures() -> None:
    found = summarise([], {})
    assert (found.over, found.success_rate, found.streak_state, found.streak) == (0, None, None, 0)
    assert (found.mean_seconds, found.p95_seconds, found.means) == (None, None, {})


def test_cancelled_cycles_do_not_count_for_the_rate() -> None:
    assert summarise([ended(C), ended(S), ended(F), ended(LOST), ended(S)], {}).success_rate == 0.5
    assert summarise([ended(C)], {}).success_rate is None


def test_the_streak_is_that_of_the_newest_state() -> None:
    found = summarise([ended(F), ended(F), ended(S), ended(F)], {})
    assert (found.streak_state, found.streak) == (F, 2)


def test_what_has_no_value_is_left_out_of_means() -> None:
    found = summarise([ended(series={"joy": 1.0}, seconds=10), ended(), ended(series={"joy": 0.0, "rage": -4.0})], {})
    assert found.means == {"joy": 0.5, "rage": -4.0}
    assert found.mean_seconds == 10


@pytest.mark.parametrize(("number", "rank"), [(1, 1), (2, 2), (19, 19), (20, 19), (21, 20), (100, 95)])
def test_p95_is_the_nearest_rank(number: int, rank: int) -> None:
    found = summarise([ended(seconds=float(n)) for n in range(number, 0, -1)], {})
    assert found.p95_seconds == rank


def test_a_mean_beyond_a_float_is_not_known() -> None:
    huge = [ended(series={"x": 1.7e308}), ended(series={"x": 1.7e308})]
    assert summarise(huge, {}).means == {}


def test_totals_are_in_the_order_of_the_lifecycle_without_what_never_was() -> None:
    counted = [("phase", "lost", 1), ("phase", "succeeded", 4), ("dream", "failed", 0), ("loop", "of-a-later-release", 2)]
    assert totals_of(counted) == {"loop": {"of-a-later-release": 2}, "phase": {"succeeded": 4, "lost": 1}}
    assert list(totals_of(counted)["phase"]) == ["succeeded", "lost"]


cycles = st.lists(
    st.builds(
        Ended,
        st.sampled_from(sorted(FINISHED)),
        st.none() | st.floats(0, 1e6),
        st.dictionaries(st.sampled_from(["joy", "rage", "a.b"]), st.floats(-1e300, 1e300), max_size=3),
    ),
    max_size=40,
)


@given(cycles)
def test_every_figure_lies_among_its_values(found: list[Ended]) -> None:
    figures = summarise(found, {})
    seconds = [one.seconds for one in found if one.seconds is not None]
    assert (figures.p95_seconds in seconds) if seconds else figures.p95_seconds is None
    assert figures.success_rate is None or 0 <= figures.success_rate <= 1
    assert figures.streak <= len(found)
    for name, mean in figures.means.items():
        values = [one.series[name] for one in found if name in one.series]
        assert min(values) <= mean <= max(values) or math.isclose(mean, values[0])
