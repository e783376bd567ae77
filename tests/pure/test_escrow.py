"""Escrow's rules over any change, its lifecycle over the full product, and how an entry is written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.baseline.escrow import (
    TRANSITIONS,
    Entry,
    Event,
    Kind,
    Reviewer,
    Rule,
    Status,
    after,
    bare_id,
    document,
    entry_id,
    file_name,
    required,
    same_eyes,
    to_bytes,
)

ALLOWED = {
    ("pending_review", "approve"): "approved",
    ("pending_review", "reject"): "rejected",
    ("pending_review", "expire"): "expired",
}
NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
NAMES = st.sampled_from(["lr", "lr_min", "batch", "secret"])
NUMBERS = st.one_of(st.integers(-1000, 1000), st.floats(allow_nan=False, allow_infinity=False))
PARAMETERS = st.dictionaries(NAMES, NUMBERS, max_size=4)
RULES = st.builds(
    Rule,
    parameter=st.sampled_from(["", "lr", "lr*", "*", "secret"]),
    change_over=st.one_of(st.none(), st.floats(0, 3)),
    actor=st.sampled_from(["", "agent-x", "ada"]),
).filter(lambda rule: rule != Rule())


@pytest.mark.parametrize(("status", "event"), list(product(Status, Event)))
def test_every_status_and_event(status: Status, event: Event) -> None:
    assert after(status, event) == ALLOWED.get((status.value, event.value))


def test_the_table_can_not_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[Status.REJECTED, Event.APPROVE] = Status.APPROVED  # type: ignore[index]  # the point of the test


@pytest.mark.parametrize(
    ("rule", "asked", "holds"),
    [
        (Rule(parameter="lr"), {"lr": 2}, True),
        (Rule(parameter="lr"), {"lr": 1}, False),  # no change
        (Rule(parameter="lr"), {"lr_min": 2}, False),
        (Rule(parameter="lr*"), {"lr_min": 2}, True),
        (Rule(parameter="LR"), {"lr": 2}, False),
        (Rule(change_over=0.2), {"lr": 1.2}, False),  # over, not from
        (Rule(change_over=0.2), {"lr": 0.8}, False),
        (Rule(change_over=0.2), {"lr": 1.2000001}, True),
        (Rule(change_over=0.2), {"lr": 0.7}, True),
        (Rule(change_over=0.02), {"tenth": 0.102}, False),  # +2 % exactly, which it is not in binary
        (Rule(change_over=1e9), {"zero": 1e-9}, True),
        (Rule(change_over=1e9), {"new": 0}, True),
        (Rule(change_over=0), {"lr": 1}, False),
        (Rule(parameter="batch", change_over=0.2), {"batch": 10.1, "lr": 9}, False),  # of one and the same change
        (Rule(actor="agent-x"), {"lr": 1.01}, True),
        (Rule(actor="ada"), {"lr": 9}, False),
        (Rule(actor="agent-x", change_over=0.2), {"lr": 1.1}, False),
    ],
)
def test_what_a_rule_holds(rule: Rule, asked: dict[str, float], holds: bool) -> None:
    baseline = {"lr": 1, "batch": 10, "zero": 0, "tenth": 0.1}
    assert (required([rule], asked, baseline, "agent-x") is not None) == holds


@given(st.lists(RULES, max_size=3), PARAMETERS, PARAMETERS, st.sampled_from(["", "agent-x", "ada"]))
def test_a_change_is_held_when_some_rule_means_it_word_for_word(
    rules: list[Rule], asked: dict[str, float], baseline: dict[str, float], emitted_by: str
) -> None:
    def means(rule: Rule, name: str, value: float) -> bool:
        before = baseline.get(name)
        named = rule.parameter in ("", "*", name) or (rule.parameter == "lr*" and name.startswith("lr"))
        if before is None or before == 0:
            large = True
        else:
            old, new = Fraction(repr(float(before))), Fraction(repr(float(value)))
            large = rule.change_over is None or abs(new - old) > Fraction(repr(rule.change_over)) * abs(old)
        by = rule.actor in ("", emitted_by) or not emitted_by  # whom nobody knows may be anybody
        return named and large and by and before != value

    wanted = any(means(rule, name, value) for rule in rules for name, value in asked.items())
    assert (required(rules, asked, baseline, emitted_by) is not None) == wanted


@given(RULES, PARAMETERS, PARAMETERS)
def test_more_rules_hold_no_less_and_no_rule_holds_nothing(
    rule: Rule, asked: dict[str, float], baseline: dict[str, float]
) -> None:
    assert required([], asked, baseline, "ada") is None
    if required([rule], asked, baseline, "ada") is not None:
        assert required([Rule(parameter="nothing"), rule], asked, baseline, "ada") is not None


def test_a_rule_is_told_as_the_settings_have_it() -> None:
    rule = Rule(parameter="lr", change_over=0.2)
    assert required([rule], {"lr": 2, "b": 1}, {"lr": 1}, "") == ('lr 1 → 2, +100 %: {parameter = "lr", change_over = 0.2}')


def test_whom_nobody_knows_may_be_the_one_that_a_rule_names() -> None:
    rule = Rule(actor="agent-x")
    assert required([rule], {"lr": 2}, {"lr": 1}, "") == 'lr 1 → 2, +100 % by nobody knows whom: {actor = "agent-x"}'
    assert required([rule], {"lr": 2}, {"lr": 1}, "ada") is None


def entry(**fields: object) -> Entry:
    given_: dict[str, object] = {
        "entry": "0123456789ab",
        "kind": Kind.PROMOTION,
        "stem": "p",
        "promotion_id": "id:p",
        "rule": "r",
        "changes": {"lr": 2},
        "before": {"lr": None},
        "fitness": 0.5,
        "evidence": {},
        "emitted_by": "agent-x",
        "created_at": NOW,
        **fields,
    }
    return Entry(**given_)  # type: ignore[arg-type]  # any field may be given


@pytest.mark.parametrize("setting", [True, False])
@pytest.mark.parametrize("held_under_it", [True, False])
@pytest.mark.parametrize(("emitted_by", "behind"), list(product(["agent-x", "ada", ""], [{"ada"}, {"ada", "agent-x"}])))
def test_four_eyes(setting: bool, held_under_it: bool, emitted_by: str, behind: set[str]) -> None:
    found = same_eyes(
        entry(emitted_by=emitted_by, four_eyes=held_under_it), Reviewer("ada", frozenset(behind)), four_eyes=setting
    )
    asked_for = setting or held_under_it
    assert (found is not None) == (asked_for and (not emitted_by or emitted_by in behind))


def test_a_rollback_was_emitted_by_nobody() -> None:
    rollback = entry(kind=Kind.ROLLBACK, target=1, emitted_by="", four_eyes=True)
    assert same_eyes(rollback, Reviewer("ada", frozenset({"ada"})), four_eyes=True) is None


def test_an_entry_is_written_as_its_format_says() -> None:
    written = json.loads(to_bytes(entry()))
    assert written == document(entry())
    assert (written["schema"], written["status"]) == ("escrow.entry/v1", "pending_review")
    assert written["diff"] == [{"name": "lr", "before": None, "after": 2, "relative": None}]
    assert written["promotion"]["emitted_by"] == "agent-x"
    assert document(entry(kind=Kind.ROLLBACK, target=3))["promotion"] is None


@given(st.text(), st.text())
def test_an_id_is_twelve_digits_and_always_the_same(token: str, stem: str) -> None:
    found = entry_id(token, stem)
    assert found == entry_id(token, stem)
    assert len(found) == 12
    assert set(found) <= set("0123456789abcdef")
    assert bare_id(f"/state/escrow/{file_name(found)}") == found == bare_id(found.upper())
    assert entry_id(token, f"{stem}x") != found != entry_id(f"{token}x", stem)
