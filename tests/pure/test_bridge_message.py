"""What a message may be, and when two posts are the same one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestration.bridge import message, wire
from orchestration.bridge.filters import Act, Filters, Pattern
from orchestration.bridge.refusal import Code, Refused

THREAD = "thr_" + "0" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def ask(**asked: Any) -> wire.PostMessage:
    return wire.PostMessage.model_validate({"thread_id": THREAD, "body": "b", **asked})


def levels(value: object) -> int:
    """Count how deep a value is nested, the slow way."""
    if isinstance(value, dict):
        return 1 + max(map(levels, value.values()), default=0)
    return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0


def texts(value: object) -> Iterator[str]:
    """Give every text in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)


def is_text(value: object) -> bool:
    return not any(one == "\0" or 0xD800 <= ord(one) < 0xE000 for text in texts(value) for one in text)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
@example({"k": "\\u0000"})
@example({"k": ["\0"]})
@example({"k": "\ud800"})
def test_metadata_passes_when_it_is_small_shallow_and_text(metadata: dict[str, Any]) -> None:
    if levels(metadata) <= 8 and is_text(metadata):
        message.check_metadata(metadata)
        return
    with pytest.raises(Refused) as refused:
        message.check_metadata(metadata)
    assert refused.value.code is Code.INVALID_ARGUMENT


@given(st.integers(0, 3))
def test_metadata_is_measured_as_it_is_kept(more: int) -> None:
    room = wire.MAX_METADATA - len('{"k":""}')
    message.check_metadata({"k": "x" * (room - more)})
    with pytest.raises(Refused) as refused:
        message.check_metadata({"k": "x" * (room + 1 + more)})
    assert refused.value.code is Code.PAYLOAD_TOO_LARGE


@given(JSON.map(lambda value: {"v": value}), JSON.map(lambda value: {"v": value}))
def test_equal_payloads_and_only_they_have_one_digest(first: dict[str, Any], second: dict[str, Any]) -> None:
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (message.digest(ask(metadata=first)) == message.digest(ask(metadata=second))) is same


@pytest.mark.parametrize("other", [{"body": "c"}, {"kind": "event"}, {"to": "a"}, {"in_reply_to": "msg_" + "1" * 32}])
def test_all_that_is_said_is_in_the_digest(other: dict[str, Any]) -> None:
    assert message.digest(ask(**other)) != message.digest(ask())
    assert message.digest(ask(idempotency_key="k")) == message.digest(ask())


@given(st.text(max_size=300))
def test_a_title_is_one_line_that_can_be_seen(title: str) -> None:
    try:
        message.check_title(title)
    except Refused:
        assert len(title) > 200 or not title.strip() or not title.isprintable()
    else:
        assert 0 < len(title) <= 200
        assert title.isprintable()


@pytest.mark.parametrize(
    ("kind", "metadata", "reply", "expected"),
    [
        ("chat", {"event_type": "fix_pushed"}, None, None),
        ("event", {"event_type": "finding_reported"}, None, ("finding_reported", "own")),
        ("event", {"event_type": "finding_reported", "finding_id": "F"}, "r", ("finding_reported", "F")),
        ("event", {"event_type": "fix_pushed"}, "r", ("fix_pushed", "r")),
        ("event", {"event_type": "fix_pushed"}, None, ("fix_pushed", "")),
        ("event", {"event_type": "deployed", "finding_id": "F"}, "r", ("deployed", "")),
    ],
)
def test_an_event_names_its_finding(kind: str, metadata: dict[str, Any], reply: str | None, expected: Any) -> None:
    event = message.event_of(wire.MessageKind(kind), metadata, in_reply_to=reply, message_id="own")
    assert event == expected


def test_metrics_name_known_events_and_other() -> None:
    labels = {message.Event(name).label for name in [*wire.EventType, "deployed", "x" * 60]}
    assert labels == {*map(str, wire.EventType), "other"}


def test_filters_mask_and_refuse_in_their_order_wherever_a_text_stands() -> None:
    import re

    filters = Filters(
        (Pattern("key", re.compile("AKIA[0-9]+"), Act.MASK), Pattern("word", re.compile("AKIA|plutonium"), Act.REFUSE))
    )
    body, metadata = filters.message("AKIA1 and", {"AKIA2": ["x", {"k": "AKIA3"}, 7]})
    assert (body, metadata) == ("[removed] and", {"[removed]": ["x", {"k": "[removed]"}, 7]})
    for place in ({"k": ["plutonium"]}, {"plutonium": 1}):
        with pytest.raises(Refused) as refused:
            filters.message("fine", place)
        assert (refused.value.code, refused.value.rule) == (Code.INVALID_ARGUMENT, "filters.word")
        assert "plutonium" not in refused.value.message
