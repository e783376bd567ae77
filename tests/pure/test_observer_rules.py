"""The observer's rules: what counts, what is told once, and when to ask again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.tick.observer_rules import SHOWN, Heartbeat, Judged, Occurrence, Rule, Seen, Watch, judge, span

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
CLUSTER = Rule("cluster", Watch.PROMOTIONS, "trigger_phase_promotion_cluster", 7, 3, 10 * MINUTE, HOUR)
BEAT = Rule("beat", Watch.HEARTBEATS, "alert_heartbeat_silent", 8, 1, 5 * MINUTE, HOUR)


def at(*minutes_ago: float) -> list[Occurrence]:
    return [Occurrence(NOW - minutes * MINUTE, f"p{minutes:g}") for minutes in sorted(minutes_ago)]


def seen(*occurrences: Occurrence, told: datetime | None = None, now: datetime = NOW) -> Seen:
    return Seen(now, {"cluster": occurrences}, (), {} if told is None else {("cluster", ""): told})


def fired(judged: Judged) -> list[tuple[str, str]]:
    return [(one.rule, one.subject) for one in judged.firings]


@pytest.mark.parametrize(
    ("minutes_ago", "count"),
    [
        ((0, 1, 2), 3),
        ((0, 5, 9.99), 3),
        ((0, 5, 10), None),
        ((0, 1), None),
        ((0, 1, 2, 3), 4),
        ((-1, 0, 1), None),
        ((), None),
    ],
)
def test_three_within_ten_minutes_are_a_cluster(minutes_ago: tuple[float, ...], count: int | None) -> None:
    judged = judge([CLUSTER], seen(*at(*minutes_ago)))
    assert [one.data["count"] for one in judged.firings] == ([] if count is None else [count])


def test_a_firing_carries_type_priority_reason_and_evidence() -> None:
    (one,) = judge([CLUSTER], seen(*at(1, 2, 3))).firings
    assert (one.intent, one.priority, one.subject) == ("trigger_phase_promotion_cluster", 7, "")
    assert one.reason == "3 promotions arrived within 10 min: p1"
    assert one.data["newest"] == [
        {"at": f"2026-11-21T11:{60 - minutes}:00Z", "what": f"p{minutes}"} for minutes in (1, 2, 3)
    ]
    assert (one.data["rule"], one.data["within_seconds"], one.data["topic"]) == ("cluster", 600, one.reason)


def test_evidence_is_bounded_and_everything_is_counted() -> None:
    many = [Occurrence(NOW - n * timedelta(seconds=1), "x" * 5000, 7) for n in range(500)]
    (one,) = judge([CLUSTER], seen(*many)).firings
    assert one.data["count"] == 3500
    assert len(json.dumps(one.data)) < (SHOWN + 2) * 500


def test_a_rule_is_silent_for_its_cooldown_and_asks_to_be_asked_when_it_ends() -> None:
    told = NOW - 59 * MINUTE
    judged = judge([CLUSTER], seen(*at(1, 2, 3), told=told))
    assert (judged.firings, judged.again_at) == ((), told + HOUR)
    assert fired(judge([CLUSTER], seen(*at(1, 2, 3), told=NOW - HOUR))) == [("cluster", "")]


def test_what_was_told_counts_no_more() -> None:
    short = CLUSTER._replace(cooldown=MINUTE)
    assert judge([short], seen(*at(0, 3, 4), told=NOW - 2 * MINUTE)) == Judged((), None)
    assert fired(judge([short], seen(*at(0, 1, 1.5), told=NOW - 2 * MINUTE))) == [("cluster", "")]


def beat(minutes_ago: float, program: str = "trader", fault: str = "") -> Heartbeat:
    return Heartbeat(program, f"/run/{program}", NOW - minutes_ago * MINUTE, fault)


def test_a_silent_heartbeat_is_told_for_each_program() -> None:
    state = Seen(NOW, {}, (beat(5), beat(4), beat(6, "feed", "is not there")), {("beat", "feed"): NOW - HOUR})
    judged = judge([BEAT], state)
    assert fired(judged) == [("beat", "trader"), ("beat", "feed")]
    assert judged.again_at == NOW + MINUTE
    assert "/run/trader was not touched since 2026-11-21T11:55:00Z, allowed are 5 min" in judged.firings[0].reason
    assert "is not there" in judged.firings[1].reason


def test_a_heartbeat_has_a_cooldown_of_its_own() -> None:
    judged = judge([BEAT], Seen(NOW, {}, (beat(9), beat(9, "feed")), {("beat", "trader"): NOW - MINUTE}))
    assert fired(judged) == [("beat", "feed")]
    assert judged.again_at == NOW + 59 * MINUTE


def test_a_file_of_the_future_lives() -> None:
    assert judge([BEAT], Seen(NOW, {}, (beat(-500),), {})) == Judged((), NOW + 5 * MINUTE)


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 5), st.integers(1, 60), st.integers(0, 90))
def test_asked_each_minute_no_rule_breaks_its_cooldown_or_counts_anything_twice(
    arrivals: list[int], at_least: int, within: int, cooldown: int
) -> None:
    rule = Rule("cluster", Watch.PROMOTIONS, "x", 5, at_least, within * MINUTE, cooldown * MINUTE)
    happened = sorted((Occurrence(NOW + m * MINUTE, str(n)) for n, m in enumerate(arrivals)), reverse=True)
    told: list[datetime] = []
    counted = 0
    for minute in range(400):
        now = NOW + minute * MINUTE
        (firings, again) = judge([rule], seen(*happened, told=told[-1] if told else None, now=now))
        for one in firings:
            told.append(now)
            number = one.data["count"]
            assert isinstance(number, int)
            assert number >= at_least
            counted += number
        assert again is None or again > now
    assert all(later - earlier >= rule.cooldown for earlier, later in pairwise(told))
    assert counted <= len(arrivals)
    if len(arrivals) >= at_least and cooldown == 0 and within == 60 and at_least == 1:
        assert counted == len(arrivals)


@pytest.mark.parametrize(
    ("length", "text"), [(HOUR * 24, "24 h"), (90 * MINUTE, "90 min"), (timedelta(seconds=1.5), "1.5 s")]
)
def test_spans_are_written_in_their_largest_whole_unit(length: timedelta, text: str) -> None:
    assert span(length) == text
