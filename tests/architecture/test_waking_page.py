"""docs/reference/waking.md says what the tables of the program say, and delivery-promises.md names tests that are there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from orchestration.bridge.wake import policy, trigger
from orchestration.bridge.wake.state import Code, Outcome
from orchestration.operator.config import toml
from orchestration.settings import Wake

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/waking.md").read_text(encoding="utf-8")
PROMISES = (ROOT / "docs/explanation/delivery-promises.md").read_text(encoding="utf-8")


def rows(name: str) -> list[list[str]]:
    """Return the cells of a marked table, without its head."""
    (table,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", PAGE, re.DOTALL)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def firsts(name: str) -> list[str]:
    return [row[0].strip("`") for row in rows(name)]


def test_the_lifecycle_is_the_programs() -> None:
    shown = [tuple(cell.strip("`") for cell in row) for row in rows("lifecycle")]
    assert shown == [(one.value, event.value, to.value) for (one, event), to in trigger.TRANSITIONS.items()]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("without_trigger", policy.WITHOUT_TRIGGER),
        ("with_trigger", policy.WITH_TRIGGER),
        ("outcomes", Outcome),
        ("codes", Code),
    ],
)
def test_rules_outcomes_and_codes_are_the_programs_in_their_order(name: str, known: Iterable[str]) -> None:
    assert firsts(name) == [str(one) for one in known]


def test_the_values_are_the_defaults() -> None:
    shown = [tuple(cell.strip("`") for cell in row) for row in rows("values")]
    assert shown == [(name, toml(getattr(Wake(), name))) for name in Wake.model_fields]


def test_every_rule_names_the_settings_that_it_goes_by() -> None:
    without_values = re.sub(r"<!-- values -->.*<!-- /values -->", "", PAGE, flags=re.DOTALL)
    assert [name for name in Wake.model_fields if f"`{name}`" not in without_values] == []


def test_each_promise_names_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", PROMISES)
    assert len(named) > 30
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text(encoding="utf-8")]
    assert missing == []
