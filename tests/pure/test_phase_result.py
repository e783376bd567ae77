"""The one number that a PHASE came to, and what it may be compared with."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.phase.result import PhaseResult, groups, of_report


def domains(**statuses: str) -> list[dict[str, str]]:
    return [{"name": name, "status": status} for name, status in statuses.items()]


@pytest.mark.parametrize(
    ("report", "value", "measure"),
    [
        ({"score": 0.7}, 0.7, "score"),
        ({"score": -3}, -3.0, "score"),
        ({"score": 5, "domains": domains(a="failed")}, 5.0, "score"),
        ({"domains": domains(a="succeeded", b="succeeded")}, 1.0, "pass rate of a, b"),
        ({"domains": domains(b="failed", a="succeeded")}, 0.5, "pass rate of a, b"),
        ({"domains": domains(a="succeeded", b="timed_out", c="failed", d="not_run")}, 0.5, "pass rate of a, c"),
    ],
)
def test_what_a_report_comes_to(report: dict[str, Any], value: float, measure: str) -> None:
    assert of_report(report, succeeded=True) == PhaseResult(value=value, measure=measure)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"domains": []},
        {"domains": "none"},
        {"domains": [{"name": "a"}, {"status": "succeeded"}, 7]},
        {"domains": domains(a="timed_out", b="lost")},
        {"score": None, "domains": domains(a="succeeded")},  # it says that it has none
        {"score": "0.7", "domains": domains(a="succeeded")},
        {"score": True},
        {"score": math.nan},
        {"score": math.inf},
        {"score": 10**400},
    ],
)
def test_what_comes_to_nothing(report: dict[str, Any]) -> None:
    assert of_report(report, succeeded=True) is None


def test_a_failed_phase_counts_if_it_came_to_its_end() -> None:
    found = {"domains": domains(a="succeeded", b="failed")}
    assert of_report(found, succeeded=False) is None
    assert of_report({**found, "result": "unfinished"}, succeeded=False) is None
    assert of_report({**found, "result": "failed"}, succeeded=False) == of_report(found, succeeded=True)


def test_another_group_makes_another_measure() -> None:
    one = of_report({"domains": domains(a="succeeded")}, succeeded=True)
    more = of_report({"domains": domains(a="succeeded", b="succeeded")}, succeeded=True)
    assert one is not None
    assert more is not None
    assert one.measure != more.measure


def test_many_groups_and_unprintable_names_give_a_short_measure_that_any_store_takes() -> None:
    for names in ([f"group-{n:03}" for n in range(100)], ["\ud800"], ["a\0b"]):
        found = of_report({"domains": domains(**dict.fromkeys(names, "succeeded"))}, succeeded=True)
        assert found is not None
        assert found.measure.isprintable()
        found.measure.encode()
        assert len(found.measure) < 250


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(report=st.fixed_dictionaries({}, optional={"score": JSON, "domains": JSON, "result": JSON}), succeeded=st.booleans())
def test_any_report_gives_a_finite_number_or_none(report: dict[str, Any], succeeded: bool) -> None:
    found = of_report(report, succeeded=succeeded)
    assert found is None or math.isfinite(found.value)
    groups(report)
