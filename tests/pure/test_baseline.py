"""How accepted promotions become the baseline, and what the verdicts of a cycle come to."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.promotions.baseline import (
    Accepted,
    Baseline,
    BaselineInvalid,
    conflicts,
    read_baseline,
    with_accepted,
)
from orchestration.promotions.baseline import to_bytes as baseline_bytes
from orchestration.promotions.document import Malformed
from orchestration.promotions.handover import Handed, Handover, parse_handover, to_bytes
from orchestration.promotions.verdict import Verdicts, accepted_of, conclude, parse_verdicts, without

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


def accepted(stem: str, fitness: float, **changes: float) -> Accepted:
    return Accepted(stem=stem, fitness=fitness, changes=changes)


def test_different_parameters_of_one_cycle_go_in_together() -> None:
    before = {"a": 1, "b": 2, "c": 3}

    after = with_accepted(before, [accepted("p", 0.6, a=10), accepted("q", 0.7, b=20)])

    assert after == ({"a": 10, "b": 20, "c": 3}, 0.7, ("p", "q"))
    assert before == {"a": 1, "b": 2, "c": 3}


def test_of_two_that_want_one_parameter_the_fitter_wins_in_any_order() -> None:
    rivals = [accepted("p", 0.6, a=1, b=1), accepted("q", 0.7, a=2), accepted("r", 0.5, b=2)]

    for order in permutations(rivals):
        assert conflicts(order) == {
            "p": "conflict in one cycle: sets 'a' = 1 while the fitter 'q' sets 2",
        }
        assert with_accepted({}, order) == ({"a": 2, "b": 2}, 0.7, ("q", "r"))


def test_equals_in_fitness_are_settled_by_stem_and_equal_values_do_not_conflict() -> None:
    assert list(conflicts([accepted("q", 1, a=1), accepted("p", 1, a=2)])) == ["q"]
    assert conflicts([accepted("q", 1, a=1), accepted("p", 1, a=1.0)]) == {}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.floats(0, 1)), min_size=1, max_size=5))
def test_no_parameter_is_set_by_a_loser_and_somebody_always_wins(given_: list[tuple[str, int, float]]) -> None:
    several = [accepted(f"s{i}", fitness, **{name: value}) for i, (name, value, fitness) in enumerate(given_)]

    lost = conflicts(several)
    parameters, fitness, stems = with_accepted({}, several)

    assert len(lost) < len(several)
    winners = [one for one in several if one.stem not in lost]
    assert all(parameters[name] == value for one in winners for name, value in one.changes.items())
    assert fitness == max(one.fitness for one in winners)
    assert stems == tuple(sorted(one.stem for one in winners))


def test_what_a_command_reads_reads_back(tmp_path: Path) -> None:
    assert read_baseline(str(tmp_path / "baseline.json")) is None
    there = Baseline(parameters={"a": 10}, fitness=0.6, cycle=1, promotions=("p",), ts=7)
    (tmp_path / "baseline.json").write_bytes(baseline_bytes(there))
    assert read_baseline(str(tmp_path / "baseline.json")) == there


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema":"v1"}', b"\xff", b"[1]"])
def test_a_damaged_baseline_is_never_guessed_at(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(content)

    with pytest.raises(BaselineInvalid, match="is no baseline"):
        read_baseline(str(path))


def handover(*stems: str) -> Handover:
    promotions = tuple(
        Handed(stem=stem, id=f"id:{stem}", fitness=0.5, changes={"a": number}, path=f"/p/{stem}.json")
        for number, stem in enumerate(stems)
    )
    return Handover(cycle=7, promotions=promotions)


def verdicts(*given_: dict[str, object]) -> Verdicts:
    result = parse_verdicts(json.dumps({"schema": "v1", "verdicts": given_}).encode())
    assert isinstance(result, Verdicts), result
    return result


def test_a_handover_reads_back() -> None:
    assert parse_handover(to_bytes(handover("p", "q"))) == handover("p", "q")


def test_each_promotion_gets_the_answer_its_verdict_says() -> None:
    said = verdicts(
        {"promotion": "p", "accepted": True, "reason": "better", "fitness": 0.9},
        {"promotion": "q", "accepted": False, "reason": "worse", "fitness": None},
        {"promotion": "stranger", "accepted": True},
    )

    answers = conclude(handover("p", "q", "r"), said)

    assert [(one.stem, one.accepted, one.reason, one.fitness) for one in answers] == [
        ("p", True, "better", 0.9),
        ("q", False, "worse", 0.5),
        ("r", False, "no verdict", 0.5),
    ]
    assert answers[0].promotion_id == "id:p"
    assert accepted_of(handover("p", "q", "r"), answers) == (accepted("p", 0.9, a=0),)


def test_a_command_that_leaves_no_verdicts_accepts_by_succeeding() -> None:
    assert [(one.accepted, one.reason) for one in conclude(handover("p"), None)] == [
        (True, "the command succeeded and left no verdicts")
    ]


def test_of_two_accepted_rivals_the_less_fit_is_answered_with_the_conflict() -> None:
    said = verdicts(
        {"promotion": "p", "accepted": True, "fitness": 0.8}, {"promotion": "q", "accepted": True, "fitness": 0.9}
    )

    p, q = conclude(handover("p", "q"), said)

    assert not p.accepted
    assert p.reason == "conflict in one cycle: sets 'a' = 0 while the fitter 'q' sets 1"
    assert q.accepted


def test_a_promotion_that_a_person_answered_meanwhile_wins_no_conflict() -> None:
    said = verdicts(
        {"promotion": "p", "accepted": True, "fitness": 0.8}, {"promotion": "q", "accepted": True, "fitness": 0.9}
    )

    (p,) = conclude(without(handover("p", "q"), frozenset({"q"})), said)

    assert p.accepted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "valid"),
        (b'{"schema": "v2", "verdicts": []}', "schema"),
        (b'{"schema": "v1"}', "verdicts"),
        (b'{"schema": "v1", "verdicts": [{"promotion": "p"}]}', "verdicts.0.accepted"),
        (b'{"schema": "v1", "verdicts": [{"promotion": "p", "accepted": "yes"}]}', "verdicts.0.accepted"),
        (b'{"schema": "v1", "verdicts": [{"promotion": "p", "accepted": true, "fitness": NaN}]}', "NaN"),
        (
            b'{"schema":"v1","verdicts":[{"promotion":"p","accepted":true},{"promotion":"p","accepted":false}]}',
            "two verdicts on the promotion 'p'",
        ),
    ],
)
def test_verdicts_that_can_not_be_trusted_are_refused_with_the_place(content: bytes, said: str) -> None:
    result = parse_verdicts(content)

    assert isinstance(result, Malformed)
    assert said in result.reason


@given(st.binary(max_size=100))
def test_any_bytes_give_verdicts_or_a_reason(data: bytes) -> None:
    assert isinstance(parse_verdicts(data), Verdicts | Malformed)
    assert isinstance(parse_handover(data), Handover | Malformed)


def test_many_verdicts_are_read_in_time_that_grows_with_their_number_only() -> None:
    """A tick has 50 seconds. Each verdict was compared with each other: 20,000 took three, 80,000 were too many for ever."""
    many = [{"promotion": f"p{number}", "accepted": True} for number in range(60_000)]
    before = time.process_time()
    read = parse_verdicts(json.dumps({"schema": "v1", "verdicts": many}).encode())
    assert isinstance(read, Verdicts)
    assert time.process_time() - before < 5
