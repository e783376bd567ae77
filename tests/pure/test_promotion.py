"""What is a promotion and what is not, and that no bytes can do worse than be refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.promotions.document import MAX_BYTES, Malformed
from orchestration.promotions.promotion import Promotion, parse

BOUNDS = {"learning_rate": (1e-4, 0.1), "batch_size": (1.0, 128.0)}
VALID: dict[str, object] = {
    "schema": "v1",
    "id": "dream:run_7",
    "timestamp": "2025-11-18T03:14:15",
    "fitness": 0.87,
    "changes": {"learning_rate": 0.01, "batch_size": 32},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


def read(fields: dict[str, object], *, strict: bool = False) -> Promotion | Malformed:
    return parse(json.dumps(fields).encode(), bounds=BOUNDS, strict=strict)


def reason(result: Promotion | Malformed) -> str:
    assert isinstance(result, Malformed), result
    return result.reason


def test_a_valid_promotion_keeps_its_numbers_as_they_are() -> None:
    promotion = read({**VALID, "schema": "v2", "winner": {"ignored": True}})

    assert isinstance(promotion, Promotion)
    assert promotion.id == "dream:run_7"
    assert promotion.fitness == 0.87
    assert promotion.timestamp == datetime(2025, 11, 18, 3, 14, 15, tzinfo=UTC)
    assert promotion.changes == {"learning_rate": 0.01, "batch_size": 32}
    assert isinstance(promotion.changes["batch_size"], int)


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        (1761087721, datetime(2025, 10, 21, 23, 2, 1, tzinfo=UTC)),
        (1761087721.5, datetime(2025, 10, 21, 23, 2, 1, 500000, tzinfo=UTC)),
        ("2025-10-21T23:02:01Z", datetime(2025, 10, 21, 23, 2, 1, tzinfo=UTC)),
        ("2025-10-21T19:02:01.000001-04:00", datetime(2025, 10, 21, 23, 2, 1, 1, tzinfo=UTC)),
        ("20251021_230201", datetime(2025, 10, 21, 23, 2, 1, tzinfo=UTC)),
    ],
)
def test_both_forms_of_a_timestamp_are_read_as_utc(written: object, instant: datetime) -> None:
    promotion = read({**VALID, "timestamp": written})

    assert isinstance(promotion, Promotion)
    assert promotion.timestamp == instant


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "v3"}, "schema: 'v3' is not a version"),
        ({"schema": 1}, "schema: 1 is not"),
        ({"id": ""}, "id: ''"),
        ({"id": 7}, "id: 7 is not a string"),
        ({"id": "a\nb"}, "id: 'a\\nb'"),
        ({"id": "\ud800"}, "id: '\\ud800'"),
        ({"id": "x" * 257}, "id: 'xxx"),
        ({"timestamp": True}, "timestamp: True"),
        ({"timestamp": "yesterday"}, "timestamp: 'yesterday'"),
        ({"timestamp": -1}, "timestamp: -1"),
        ({"timestamp": 1e30}, "timestamp: 1e+30"),
        ({"timestamp": "0001-01-01T00:00+14:00"}, "timestamp: "),
        ({"fitness": -0.001}, "fitness: -0.001 is below 0"),
        ({"fitness": True}, "fitness: True is not a number"),
        ({"fitness": "0.9"}, "fitness: '0.9' is not a number"),
        ({"fitness": None}, "fitness: None is not a number"),
        ({"fitness": 10**400}, "is not a finite number"),
        ({"changes": []}, "changes: [] is not an object"),
        ({"changes": {"learning_rate": False}}, "changes: 'learning_rate' False is not a number"),
        ({"changes": {"learning_rate": "0.1"}}, "changes: 'learning_rate' '0.1' is not a number"),
        ({"changes": {"learning_rate": 0.1000001}}, "'learning_rate' = 0.1000001 is above its bound 0.1"),
        ({"changes": {"learning_rate": 0.00009}}, "'learning_rate' = 9e-05 is below its bound 0.0001"),
        ({"changes": {"batch_size": 129}}, "'batch_size' = 129 is above its bound 128"),
        ({"changes": {"free": 10**400}}, "is not a finite number"),
        ({"changes": {"": 1}}, "'' is no name"),
        ({"changes": {"\udfff": 1}}, "'\\udfff' is no name"),
    ],
)
def test_each_fault_is_named_with_its_field_and_value(change: dict[str, object], said: str) -> None:
    assert said in reason(read({**VALID, **change}))


@pytest.mark.parametrize("field", list(VALID))
def test_a_missing_field_is_named(field: str) -> None:
    fields = {key: value for key, value in VALID.items() if key != field}

    assert reason(read(fields)) == f"{field}: the field is missing"


@pytest.mark.parametrize("value", [1e-4, 0.1])
def test_bounds_include_both_ends(value: float) -> None:
    assert isinstance(read({**VALID, "changes": {"learning_rate": value}}), Promotion)


def test_unknown_names_pass_unless_strict() -> None:
    fields = {**VALID, "changes": {"momentum": 0.9}}

    assert isinstance(read(fields), Promotion)
    assert "'momentum' has no bounds" in reason(read(fields, strict=True))


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("field", ["fitness", "changes"])
def test_what_is_no_finite_number_is_refused(literal: str, field: str) -> None:
    text = json.dumps(VALID)
    text = text.replace("0.87", literal) if field == "fitness" else text.replace("0.01", literal)

    result = parse(text.encode(), bounds={})

    assert isinstance(result, Malformed)
    assert "number" in result.reason
    assert not result.unfinished


def test_a_key_that_stands_there_twice_is_refused_wherever_it_is() -> None:
    outer = json.dumps(VALID)[:-1].encode() + b', "fitness": 99}'
    inner = json.dumps(VALID).replace('"batch_size": 32', '"learning_rate": 0.02').encode()

    assert reason(parse(outer, bounds={})) == "the key 'fitness' stands there twice"
    assert reason(parse(inner, bounds={})) == "the key 'learning_rate' stands there twice"


def test_a_file_may_have_one_mebibyte_and_no_more() -> None:
    data = json.dumps(VALID).encode()

    assert isinstance(parse(data.ljust(MAX_BYTES), bounds={}), Promotion)
    assert "larger than" in reason(parse(data.ljust(MAX_BYTES + 1), bounds={}))


def test_bytes_that_are_no_utf_8_are_refused_with_their_place() -> None:
    result = parse(b'{"id": "\xff"}', bounds={})

    assert isinstance(result, Malformed)
    assert result.reason == "the file is not UTF-8: byte 0xff at offset 8"


@pytest.mark.parametrize("data", [b"[" * 100_000, b"1" * 5000, b"[]", b'"text"', b"null", b"\xef\xbb\xbf{}"])
def test_odd_json_is_refused(data: bytes) -> None:
    assert isinstance(parse(data, bounds={}), Malformed)


@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        ({**VALID, "fitness": -1}, "dream:run_7"),
        ({"promotion_id": "spica:7", "winner": {}}, "spica:7"),
        ({**VALID, "id": "a\nb"}, None),
        ({}, None),
    ],
)
def test_an_invalid_one_still_says_what_it_calls_itself(fields: dict[str, object], identity: str | None) -> None:
    result = read(fields)

    assert isinstance(result, Malformed)
    assert result.identity == identity


def test_all_faults_are_told_at_once() -> None:
    said = reason(read({**VALID, "schema": "v9", "fitness": -1, "changes": {"batch_size": 0, "learning_rate": 1}}))

    assert "schema" in said
    assert "fitness" in said
    assert "batch_size" in said
    assert "learning_rate" in said


@given(st.integers(min_value=0, max_value=len(json.dumps(VALID)) - 1))
def test_no_beginning_of_a_file_is_taken_for_the_whole(length: int) -> None:
    result = parse(json.dumps(VALID).encode()[:length], bounds={})

    assert isinstance(result, Malformed)
    assert result.unfinished


@given(st.binary(max_size=200) | JSON.map(json.dumps).map(str.encode))
def test_any_bytes_give_a_promotion_or_a_reason(data: bytes) -> None:
    result = parse(data, bounds=BOUNDS)

    assert isinstance(result, Promotion | Malformed)


@given(
    st.fixed_dictionaries({key: st.just(value) | JSON for key, value in VALID.items()}),
    st.booleans(),
)
def test_any_fields_give_a_sound_promotion_or_a_printable_reason(fields: dict[str, object], strict: bool) -> None:
    result = read(fields, strict=strict)

    if isinstance(result, Malformed):
        assert result.reason.isprintable()
        result.reason.encode()
    else:
        assert 0 <= result.fitness < float("inf")
        json.dumps(result.changes, allow_nan=False).encode()
        assert result.timestamp.utcoffset() == UTC.utcoffset(None)
