"""The chain of baseline versions: what a version is called, what its file says, and how a change is found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from orchestration.baseline.version import (
    FIRST,
    Change,
    Kind,
    Provenance,
    Version,
    broken_links,
    changes,
    content,
    following,
)
from orchestration.promotions.document import is_text
from orchestration.promotions.promotion import Number

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
MADE = Provenance(at=NOW, actor="kloros", kind=Kind.CYCLE, reason="cycle 7 accepted 1 of 1", cycle=7)
NUMBERS = st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False))
PARAMETERS = st.dictionaries(st.text(min_size=1).filter(is_text), NUMBERS, max_size=4)


def chain(*parameters: dict[str, Number]) -> list[Version]:
    versions: list[Version] = []
    for one in parameters:
        versions.append(following(versions[-1] if versions else None, MADE, one, promotions=["p"], fitness=0.5))
    return versions


@given(PARAMETERS)
@example({"x" * 2000: 1, "é" * 101: 0.5, "short": 2})  # YAML's keys in one line end at 1024 characters
def test_any_parser_of_yaml_reads_the_very_numbers(parameters: dict[str, Number]) -> None:
    (version,) = chain(parameters)
    read = yaml.safe_load(content(version)) or {}
    assert read == parameters
    assert {name: type(value) for name, value in read.items()} == {n: type(v) for n, v in parameters.items()}


def test_a_version_is_named_by_its_content_and_names_the_one_before() -> None:
    first, second = chain({"a": 1}, {"a": 2})
    assert (first.version, first.previous_sha) == (1, FIRST)
    assert (second.version, second.previous_sha) == (2, first.sha256)
    assert f'# previous_sha: "{first.sha256}"' in content(second).decode()
    assert following(first, MADE, {"a": 2}, promotions=["p"], fitness=0.5) == second, "the same origin, the same name"


@given(st.lists(PARAMETERS, min_size=1, max_size=5))
def test_a_chain_as_it_was_made_holds(parameters: list[dict[str, Number]]) -> None:
    assert broken_links(chain(*parameters)) == []


@given(st.integers(0, 3), st.sampled_from(["parameters", "actor", "reason", "cycle", "promotions", "fitness"]))
def test_whatever_is_changed_in_a_version_is_found(index: int, what: str) -> None:
    versions = chain({"a": 1}, {"a": 2}, {"a": 3}, {"a": 4})
    one = versions[index]
    changed = {
        "parameters": replace(one, parameters={"a": 9}),
        "actor": replace(one, provenance=replace(MADE, actor="mallory")),
        "reason": replace(one, provenance=replace(MADE, reason="")),
        "cycle": replace(one, provenance=replace(MADE, cycle=8)),
        "promotions": replace(one, promotions=()),
        "fitness": replace(one, fitness=0.6),
    }[what]
    versions[index] = changed
    assert broken_links(versions) == [f"version {index + 1} was changed in the store: its hash is not {one.sha256[:12]}"]


def test_a_version_that_is_missing_or_made_anew_is_found() -> None:
    versions = chain({"a": 1}, {"a": 2}, {"a": 3})
    assert broken_links([versions[0], versions[2]]) == ["version 2 is missing: version 3 follows"]
    forged = following(versions[0], MADE, {"a": 666})
    assert broken_links([versions[0], forged, versions[2]]) == [
        f"version 3 follows {versions[1].sha256[:12]}, not {forged.sha256[:12]}"
    ]


def test_changes_are_the_parameters_that_differ() -> None:
    found = changes({"a": 1, "b": 2, "c": 0}, {"b": 3, "c": 5, "d": 4})
    assert [(one.name, one.before, one.after, one.relative) for one in found] == [
        ("a", 1, None, None),
        ("b", 2, 3, 0.5),
        ("c", 0, 5, None),
        ("d", None, 4, None),
    ]
    assert Change(name="x", before=-2, after=-1).relative == 0.5
