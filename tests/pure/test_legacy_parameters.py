"""The numbers of an older baseline: as PyYAML reads what it wrote itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from orchestration.baseline.version import Kind, Provenance, content, following
from orchestration.errors import Malformed
from orchestration.legacy.parameters import parse_parameters

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,12}", fullmatch=True)
OTHERS = st.booleans() | st.none() | st.text(st.characters(codec="ascii", categories=["L", "N"])) | st.lists(NUMBERS)


@given(st.dictionaries(NAMES, NUMBERS | OTHERS | st.dictionaries(NAMES, NUMBERS)))
def test_what_was_dumped_is_read_and_the_rest_is_named(config: dict[str, object]) -> None:
    read = parse_parameters(yaml.safe_dump(config, default_flow_style=False, sort_keys=False).encode())
    wanted = {n: v for n, v in config.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    assert read.numbers == wanted
    assert sorted(read.left_out) == sorted(config.keys() - wanted.keys())


@given(st.dictionaries(NAMES, NUMBERS))
def test_json_is_read_as_well_also_inside_parameters(config: dict[str, float]) -> None:
    assert parse_parameters(json.dumps(config).encode()).numbers == config or "parameters" in config
    assert parse_parameters(json.dumps({"schema": "v1", "parameters": config}).encode()).numbers == config


@example({"é" * 101: 1.0, "b": 2.0})  # too long for a key in one line
@given(st.dictionaries(st.text(min_size=1), NUMBERS))
def test_files_of_our_own_versions_are_read(parameters: dict[str, float]) -> None:
    made = Provenance(at=datetime(2025, 11, 21, tzinfo=UTC), actor="a", kind=Kind.SET, reason="")
    try:
        written = content(following(None, made, parameters))
    except UnicodeEncodeError:
        return
    assert parse_parameters(written).numbers == dict(parameters)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- a\n- b\n", "line 1 is no"),
        ("a: 1\na: 2\n", "line 2: 'a' occurs twice"),
        ("a: 1\n  b: 2\n", "line 2 is no"),
        ("{a: 1}", "no JSON"),
        ("just text", "line 1 is no"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse_parameters(text.encode())


@pytest.mark.parametrize("text", ["a: .inf", "a: .nan", "a: 0x10", "a: 010", "a: '1'", "a: 1e-05", "a: 2025-11-21", "a:"])
def test_what_is_no_number_to_the_older_program_is_left_out(text: str) -> None:
    assert parse_parameters(text.encode()) == ({}, ("a",))


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        parse_parameters(data)
    except Malformed as error:
        assert error.message  # noqa: PT017 - either is fine
