"""The choice of a PHASE's type: the rule alone, its bounds, and what it achieves in simulation."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.phase.heuristics import (
    Fidelity,
    Past,
    PhaseType,
    Tally,
    advise,
    choose,
    of_phase,
    pass_weights,
    scores,
    tally,
    terms,
)

NOBODY = dict.fromkeys(PhaseType, Tally())
STATUSES = st.sampled_from(["succeeded", "failed", "timed_out", "not_run", "odd"])


def past(number: int = 1, phase_type: PhaseType = PhaseType.LIGHT, **changed: Any) -> Past:
    usual: dict[str, Any] = {
        "cycle": number,
        "phase_type": phase_type,
        "succeeded": True,
        "groups": {},
        "wall_seconds": 60.0,
        "timeout_seconds": 600.0,
        "tried": 0,
        "accepted": 0,
        "followed": 0,
        "followed_well": 0,
    }
    return Past(**(usual | changed))


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    return past(
        draw(st.integers(1, 999)),
        draw(st.sampled_from(PhaseType)),
        succeeded=draw(st.booleans()),
        groups=draw(st.dictionaries(st.sampled_from("abcd"), STATUSES)),
        wall_seconds=draw(st.none() | st.floats(0, 1e6)),
        timeout_seconds=draw(st.floats(0, 1e6)),
        tried=draw(st.integers(0, 9)),
        accepted=draw(st.integers(0, 20)),
        followed=(followed := draw(st.integers(0, 9))),
        followed_well=draw(st.integers(0, followed)),
    )


def test_each_term_says_what_it_is_defined_to_say() -> None:
    before = past(groups={"a": "succeeded", "b": "succeeded", "c": "failed"})
    now = past(
        groups={"a": "failed", "b": "succeeded", "c": "timed_out", "d": "succeeded"},
        wall_seconds=150.0,
        tried=4,
        accepted=1,
        followed=3,
        followed_well=1,
    )
    one = of_phase(now, before)
    assert (one.result_yield, one.novelty, one.promotion, one.stability, one.cost) == (0.75, 0.5, 0.25, 0.5, 0.25)
    assert one.reward == pytest.approx(0.4 * 0.75 + 0.2 * 0.5 + 0.2 * 0.25 + 0.15 * 0.5 - 0.05 * 0.25)


def test_a_phase_without_groups_is_judged_by_its_end_and_a_lost_one_cost_all() -> None:
    assert of_phase(past(), None).result_yield == 1
    lost = of_phase(past(succeeded=False, wall_seconds=None), None)
    assert (lost.result_yield, lost.stability, lost.cost, lost.reward) == (0, 0, 1, -0.05)


@given(pasts(), st.none() | pasts())
def test_every_term_is_within_0_and_1(now: Past, before: Past | None) -> None:
    one = of_phase(now, before)
    for term in (one.result_yield, one.novelty, one.promotion, one.stability, one.cost):
        assert 0 <= term <= 1
    assert -0.05 <= one.reward <= sum((0.4, 0.2, 0.2, 0.15))  # as floats add: a hair above 0.95


def test_each_type_is_tried_once_first_in_their_order_and_equals_go_to_the_first() -> None:
    tallies = dict(NOBODY)
    tried = []
    for total in (0.9, 0.0, 0.5):
        tried.append(choose(tallies))
        tallies[tried[-1]] = Tally(trials=1, total=total)
    assert tried == [PhaseType.LIGHT, PhaseType.DEEP, PhaseType.REM]
    assert choose(dict.fromkeys(PhaseType, Tally(trials=2, total=1.0))) is PhaseType.LIGHT


def test_the_score_is_ucb1_with_c_of_1_4() -> None:
    tallies = {
        PhaseType.LIGHT: Tally(trials=4, total=2.0),
        PhaseType.DEEP: Tally(trials=1, total=0.5),
        PhaseType.REM: Tally(trials=5, total=1.0),
    }
    found = scores(tallies)
    assert found[PhaseType.LIGHT] == pytest.approx(0.5 + 1.4 * math.sqrt(math.log(10) / 4))
    assert found[PhaseType.REM] == pytest.approx(0.2 + 1.4 * math.sqrt(math.log(10) / 5))
    assert choose(tallies) is PhaseType.DEEP


@given(st.dictionaries(st.sampled_from(PhaseType), st.none() | st.floats(-0.05, 0.95)), st.sampled_from(PhaseType))
def test_pass_weights_are_between_10_and_50_hundredths_and_make_1(
    means: Mapping[PhaseType, float | None], chosen: PhaseType
) -> None:
    weights = pass_weights(means, chosen)
    assert sorted(weights) == ["DEEP", "LIGHT", "REM"]
    assert all(0.10 <= weight <= 0.50 for weight in weights.values())
    assert sum(round(weight * 100) for weight in weights.values()) == 100
    assert sum(weights.values()) == pytest.approx(1, abs=1e-9)


def test_the_chosen_type_and_the_better_one_get_more_of_a_phase() -> None:
    weights = pass_weights({PhaseType.DEEP: 0.8, PhaseType.LIGHT: 0.2}, PhaseType.REM)
    assert weights == {"LIGHT": 0.17, "DEEP": 0.38, "REM": 0.45}


@given(st.lists(pasts(), max_size=20), st.integers(1, 256))
def test_advice_is_within_bounds_and_the_same_each_time(history: list[Past], cores: int) -> None:
    hints = advise(history, cores=cores, more={"baseline_version": 3})
    assert hints == advise(history, cores=cores, more={"baseline_version": 3})
    assert hints.phase_type is choose(tally(terms(history)))
    assert 1 <= hints.workers_hint <= cores
    assert hints.rationale
    assert hints.signals["baseline_version"] == 3


def test_a_group_that_failed_is_tested_thoroughly_and_a_steady_one_less() -> None:
    def seen(number: int, phase_type: PhaseType, b: str = "succeeded") -> Past:
        return past(number, phase_type, groups={"a": "succeeded", "b": b, "c": "succeeded"}, tried=1)

    first = advise([seen(1, PhaseType.LIGHT, "failed")], cores=8, more={})
    assert (first.phase_type, first.test_group_overrides) == (PhaseType.DEEP, {})
    third = advise([seen(1, PhaseType.LIGHT), seen(2, PhaseType.DEEP), seen(3, PhaseType.DEEP, "failed")], cores=8, more={})
    assert third.phase_type is PhaseType.REM
    assert third.test_group_overrides == {"a": Fidelity.LOW, "b": Fidelity.HIGH, "c": Fidelity.LOW}
    assert (third.workers_hint, third.fidelity_hint) == (4, Fidelity.MEDIUM)


MEANS = {PhaseType.LIGHT: 0.2, PhaseType.DEEP: 0.8, PhaseType.REM: 0.3}
BEST = PhaseType.DEEP
CHECKPOINTS = (100, 1_000, 10_000)


def simulated(seed: int) -> dict[int, dict[PhaseType, int]]:
    """Return how often each type was chosen, at each checkpoint, where a reward is 1 with its type's chance, else 0."""
    chance, tallies, found = random.Random(seed), dict(NOBODY), {}
    for turn in range(1, CHECKPOINTS[-1] + 1):
        chosen = choose(tallies)
        so_far = tallies[chosen]
        reward = float(chance.random() < MEANS[chosen])
        tallies[chosen] = Tally(trials=so_far.trials + 1, total=so_far.total + reward)
        if turn in CHECKPOINTS:
            found[turn] = {one: tallies[one].trials for one in PhaseType}
    return found


@pytest.fixture(scope="module")
def runs() -> list[dict[int, dict[PhaseType, int]]]:
    return [simulated(seed) for seed in range(8)]


def test_it_finds_the_better_type_and_goes_on_trying_the_others(runs: list[dict[int, dict[PhaseType, int]]]) -> None:
    for run in runs:
        assert run[10_000][BEST] > 0.95 * 10_000
        for other in set(PhaseType) - {BEST}:
            assert run[100][other] < run[1_000][other] < run[10_000][other]


def test_regret_grows_no_faster_than_logarithmically(runs: list[dict[int, dict[PhaseType, int]]]) -> None:
    """Every tenfold time adds about the same; and each run stays below the bound of Auer et al., theorem 1."""

    def regret(counts: Mapping[PhaseType, int]) -> float:
        return sum((MEANS[BEST] - MEANS[one]) * trials for one, trials in counts.items())

    gaps = [MEANS[BEST] - mean for one, mean in MEANS.items() if one is not BEST]
    for run in runs:
        for turns, counts in run.items():
            bound = sum(8 * math.log(turns) / gap for gap in gaps) + (1 + math.pi**2 / 3) * sum(gaps)
            assert regret(counts) <= bound
    at = [sum(regret(run[turns]) for run in runs) / len(runs) for turns in CHECKPOINTS]
    assert at[2] - at[1] < 1.5 * (at[1] - at[0])
