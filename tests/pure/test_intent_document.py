"""The intent file: real forms are read, everything else is one named fault and never another exception."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import Malformed
from orchestration.intents.document import SIZE_LIMIT, Intent, parse, render

NOW = datetime(2026, 11, 21, 3, 30, 0, 250000, tzinfo=UTC)


def observed(**changes: object) -> dict[str, object]:
    """A payload as the observer builds it: KLoROS src/kloros/observer/rules.py to_dict, emit.py emit."""
    return {
        "intent_type": "trigger_phase_promotion_cluster",
        "priority": 7,
        "reason": "Promotion cluster detected: 3 promotions in 10 minutes",
        "data": {"promotion_count": 3, "promotion_files": ["/p/a.json"], "ratio": 1e5},
        "generated_at": 1763400000.123456,
        "emitted_at": 1763400000.2,
        "emitted_by": "observer",
    } | changes


def with_checksum(payload: dict[str, object], text: str) -> bytes:
    return json.dumps({**payload, "sha256": hashlib.sha256(text.encode()).hexdigest()}, indent=2).encode()


def fault_of(content: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        parse(content)
    return caught.value.message


def outcome(content: bytes) -> Intent | str:
    """Give the intent, or the fault's message."""
    try:
        return parse(content)
    except Malformed as fault:
        return fault.message


def test_the_observers_file_passes_with_its_checksum() -> None:
    payload = observed(reason="Zürich ☂")
    intent = parse(with_checksum(payload, json.dumps(payload, indent=2)))
    assert intent.checksummed
    assert intent.emitted == datetime(2025, 11, 17, 17, 20, 0, 123456, tzinfo=UTC)


def test_our_checksum_passes_in_any_key_order() -> None:
    payload = observed()
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    assert parse(with_checksum(dict(reversed(payload.items())), text)).checksummed


def test_the_observers_checksum_depends_on_the_key_order_of_the_file() -> None:
    payload = observed()
    reordered = dict(reversed(payload.items()))
    assert "sha256" in fault_of(with_checksum(reordered, json.dumps(payload, indent=2)))


@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_checksum_is_accepted_and_marked(missing: object) -> None:
    assert not parse(json.dumps(observed(sha256=missing)).encode()).checksummed
    assert not parse(json.dumps(observed()).encode()).checksummed


@pytest.mark.parametrize("wrong", ["0" * 64, 7, ["x"], "deadbeef"])
def test_a_wrong_checksum_is_malformed(wrong: object) -> None:
    assert "sha256" in fault_of(json.dumps(observed(sha256=wrong)).encode())


def test_curiosity_files_without_emission_and_reason_pass() -> None:
    written = {"intent_type": "curiosity_investigate", "priority": 6, "data": {"question_id": "q_1234"}}
    intent = parse(json.dumps(written).encode())
    assert (intent.reason, intent.emitted, intent.topic) == ("", None, "q_1234")


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        (1763400000, datetime(2025, 11, 17, 17, 20, tzinfo=UTC)),
        (1763400000000, datetime(2025, 11, 17, 17, 20, tzinfo=UTC)),
        ("2025-11-17T18:20:00+01:00", datetime(2025, 11, 17, 17, 20, tzinfo=UTC)),
        ("2025-11-17T17:20:00Z", datetime(2025, 11, 17, 17, 20, tzinfo=UTC)),
        ("2025-11-17T17:20:00", None),
        (-1e10, datetime(1970, 1, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        (None, None),
    ],
)
def test_instants_are_read_in_the_forms_that_occur(written: object, instant: datetime | None) -> None:
    assert parse(json.dumps(observed(generated_at=written, emitted_at=None)).encode()).emitted == instant


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not JSON"),
        (b"[]", "expected an object"),
        (b"{}", "intent_type"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"intent_type": "x", "intent_type": "y"}', "twice"),
        (b'{"intent_type": "x", "data": {"a": NaN}}', "NaN"),
        (b'{"intent_type": "x", "data": {"a": -Infinity}}', "Infinity"),
        (b'{"intent_type": "x", "data": {"a": 1e999}}', "too large"),
        (b'{"intent_type": "x", "priority": 11}', "priority"),
        (b'{"intent_type": "x", "priority": -1}', "priority"),
        (b'{"intent_type": "x", "priority": true}', "priority"),
        (b'{"intent_type": "x", "priority": "high"}', "priority"),
        (b'{"intent_type": "x", "generated_at": true}', "generated_at"),
        (b'{"intent_type": "x", "generated_at": 1e300}', "generated_at"),
        (b'{"intent_type": "x", "generated_at": "soon"}', "generated_at"),
        (b'{"intent_type": "../x"}', "intent_type"),
        (b'{"intent_type": "x\\n"}', "intent_type"),
        (b'{"intent_type": "x", "data": []}', "data"),
        (b'{"intent_type": "x", "data": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", "nested"),
        (b'{"intent_type": "x", "data": {"a": ' + b"9" * 5000 + b"}}", "not JSON"),
        (b" " * (SIZE_LIMIT + 1), "larger"),
    ],
)
def test_what_is_no_intent_is_malformed_with_the_reason(content: bytes, fault: str) -> None:
    assert fault in fault_of(content)


@pytest.mark.parametrize("depth", [10, 250, 253, 254, 255, 256, 257, 300, 990])
def test_a_nested_intent_is_either_refused_or_can_be_written_again(depth: int) -> None:
    content = b'{"intent_type": "alert_x", "data": {"q":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}}"
    read = outcome(content)
    if isinstance(read, Intent):
        assert json.dumps(read.model_dump(mode="json"))
    else:
        assert depth > 200
        assert len(read) < 400


def test_equal_requests_have_equal_content_whoever_asks_and_when() -> None:
    one = parse(json.dumps(observed()).encode())
    two = parse(json.dumps(observed(emitted_by="me", emitted_at=1, generated_at=2, priority=1)).encode())
    other = parse(json.dumps(observed(data={"promotion_count": 4})).encode())
    assert one.content_sha == two.content_sha != other.content_sha


def test_a_topic_is_one_printable_line_that_fits_an_environment_variable() -> None:
    written = {"intent_type": "trigger_dream", "data": {"topic": "  a\x00b\nc\t" + "x" * 1000}}
    topic = parse(json.dumps(written).encode()).topic
    assert topic.startswith("a b c x")
    assert len(topic) == 500


def test_what_we_write_is_what_we_read() -> None:
    name, content = render(
        intent_type="trigger_dream", priority=10, reason="ünïcode", data={"topic": "swap"}, emitted_by="ctl", now=NOW
    )
    intent = parse(content)
    assert intent.checksummed
    assert (intent.topic, intent.emitted, intent.reason) == ("swap", NOW, "ünïcode")
    assert name == f"1795231800250_trigger_dream_{intent.content_sha[:8]}.json"


@pytest.mark.parametrize("wrong", [{"priority": 11}, {"intent_type": "a b"}, {"data": {"x": float("nan")}}])
def test_we_do_not_write_what_is_no_intent(wrong: dict[str, object]) -> None:
    fields = {"intent_type": "x", "priority": 1, "reason": "", "data": {}, "emitted_by": "", "now": NOW} | wrong
    with pytest.raises(Malformed):
        render(**fields)  # type: ignore[arg-type]  # wrong on purpose


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
payloads = st.fixed_dictionaries(
    {},
    optional={
        "intent_type": st.sampled_from(["trigger_phase", "suggest_x", "x\x00"]) | json_values,
        "priority": st.integers(-1, 11) | json_values,
        "reason": json_values,
        "data": st.dictionaries(st.text(), json_values, max_size=3) | json_values,
        "generated_at": json_values,
        "emitted_at": json_values,
        "emitted_by": json_values,
        "sha256": json_values,
        "checksummed": json_values,
    },
)


@given(
    st.binary()
    | json_values.map(lambda value: json.dumps(value).encode())
    | payloads.map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_an_intent_or_malformed(content: bytes) -> None:
    read = outcome(content)
    if isinstance(read, Intent):
        assert 0 <= read.priority <= 10
        assert read.topic.encode() is not None
        assert json.dumps(read.model_dump(mode="json"))
    else:
        assert read.encode(), "a reason that the store can hold"
