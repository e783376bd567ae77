"""The queue's rules: what a type asks for, which intent is next, and what becomes of the others."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.intents.intent import (
    STARTS,
    Category,
    PendingIntent,
    Status,
    arrange,
    category_of,
    rank,
    waiting_since,
)

NOW = datetime(2026, 11, 21, 3, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Limits(NamedTuple):
    max_pending: int = 50
    per_tick: int = 10
    expires_after: timedelta = timedelta(hours=24)
    dedup_within: timedelta = HOUR


def intent(
    name: str, intent_type: str = "curiosity_explore", *, priority: int = 5, sha: str = "", ago: timedelta = HOUR
) -> PendingIntent:
    return PendingIntent(
        name=name,
        intent_type=intent_type,
        priority=priority,
        category=category_of(intent_type),
        topic="",
        content_sha=sha or name,
        checksummed=True,
        since=NOW - ago,
    )


@pytest.mark.parametrize(
    ("intent_type", "category"),
    [
        ("trigger_phase", Category.PHASE),
        ("trigger_phase_promotion_cluster", Category.PHASE),
        ("trigger_dream", Category.DREAM_CYCLE),
        ("trigger_dream_vllm_oom", Category.DREAM_CYCLE),
        ("curiosity_investigate", Category.DREAM_CYCLE),
        ("idle_reflection", Category.REFLECTION),
        ("idle_reflection_deep", Category.UNKNOWN),
        ("suggest_lock_optimization", Category.SUGGESTION),
        ("suggest", Category.SUGGESTION),
        ("suggestion", Category.UNKNOWN),
        ("alert_gpu_oom", Category.ALERT),
        ("alert", Category.ALERT),
        ("alerting", Category.UNKNOWN),
        ("curiosity", Category.UNKNOWN),
        ("trigger", Category.UNKNOWN),
        ("discover.module", Category.UNKNOWN),
        ("TRIGGER_PHASE", Category.UNKNOWN),
    ],
)
def test_a_type_says_what_is_asked_for(intent_type: str, category: Category) -> None:
    assert category_of(intent_type) is category


def test_the_highest_priority_is_next_then_the_oldest() -> None:
    low, old, young = intent("low", priority=1, ago=5 * HOUR), intent("old", ago=2 * HOUR), intent("young", ago=HOUR)
    assert [found.name for found in arrange([young, low, old], [], NOW, Limits()).waiting] == ["old", "young", "low"]


def test_an_intent_is_stale_after_its_time_and_not_at_it() -> None:
    day = timedelta(hours=24)
    arranged = arrange([intent("at", ago=day), intent("after", ago=day + HOUR / 3600)], [], NOW, Limits())
    assert [(verdict.intent.name, verdict.status) for verdict in arranged.verdicts] == [("after", Status.STALE)]
    assert [found.name for found in arranged.waiting] == ["at"]


def test_of_equal_ones_within_the_hour_the_oldest_stays_whatever_its_priority() -> None:
    first, second = intent("first", sha="x", ago=HOUR, priority=1), intent("second", sha="x", ago=HOUR / 2, priority=9)
    arranged = arrange([second, first], [], NOW, Limits())
    assert [found.name for found in arranged.waiting] == ["first"]
    assert arranged.verdicts[0].status is Status.DEDUPLICATED


def test_equal_ones_an_hour_apart_are_two() -> None:
    arranged = arrange([intent("a", sha="x", ago=2 * HOUR), intent("b", sha="x", ago=HOUR)], [], NOW, Limits())
    assert len(arranged.waiting) == 2


def test_a_duplicate_suppresses_nothing_itself() -> None:
    three = [intent(str(minutes), sha="x", ago=timedelta(minutes=minutes)) for minutes in (100, 50, 0)]
    arranged = arrange(three, [], NOW, Limits())
    assert {found.name for found in arranged.waiting} == {"100", "0"}


def test_what_was_processed_within_the_hour_is_not_done_again() -> None:
    again = intent("again", sha="x", ago=timedelta(minutes=10))
    done = [("x", NOW - timedelta(minutes=69))]
    assert arrange([again], done, NOW, Limits()).verdicts[0].status is Status.DEDUPLICATED
    assert arrange([again], [("x", NOW - timedelta(minutes=70))], NOW, Limits()).waiting == (again,)


def test_overflow_drops_the_lowest_then_the_youngest_and_says_so() -> None:
    many = [intent(f"{number:02}", priority=number % 3, ago=timedelta(minutes=number)) for number in range(9)]
    arranged = arrange(many, [], NOW, Limits(max_pending=4))
    dropped = [verdict for verdict in arranged.verdicts if verdict.status is Status.QUEUE_OVERFLOW]
    assert [found.name for found in arranged.waiting] == ["08", "05", "02", "07"]
    assert {verdict.intent.name for verdict in dropped} == {"00", "01", "03", "04", "06"}
    assert "more than 4" in dropped[0].reason


def test_a_tick_finishes_at_most_ten_that_start_nothing_and_no_trigger() -> None:
    notes = [intent(f"note{number:02}", "suggest_x") for number in range(12)]
    arranged = arrange([*notes, intent("trigger", priority=0)], [], NOW, Limits())
    assert len(arranged.verdicts) == 10
    assert {found.name for found in arranged.waiting} == {"note10", "note11", "trigger"}


def test_an_unknown_type_is_archived_with_its_name() -> None:
    (verdict,) = arrange([intent("x", "run_scanner")], [], NOW, Limits()).verdicts
    assert verdict.status is Status.UNKNOWN
    assert "run_scanner" in verdict.reason


def test_an_instant_in_the_future_counts_from_its_first_sight() -> None:
    future = NOW + timedelta(days=365)
    first = waiting_since(future, None, NOW)
    assert first == NOW
    assert waiting_since(future, first, NOW + HOUR) == first


def test_the_earlier_of_emission_and_first_sight_counts_and_never_a_later_one() -> None:
    assert waiting_since(NOW - HOUR, NOW, NOW) == NOW - HOUR
    assert waiting_since(None, NOW - HOUR, NOW) == NOW - HOUR
    assert waiting_since(NOW + HOUR, NOW + 2 * HOUR, NOW) == NOW, "the clock was set back since the first sight"


pending = st.builds(
    lambda number, kind, priority, sha, ago: intent(str(number), kind, priority=priority, sha=sha, ago=ago),
    st.integers(0, 10_000),
    st.sampled_from(["trigger_phase", "curiosity_x", "suggest_x", "alert_x", "other"]),
    st.integers(0, 10),
    st.sampled_from("abcdef"),
    st.timedeltas(timedelta(days=-400), timedelta(days=400)),
)


@given(
    st.lists(pending, max_size=30, unique_by=lambda found: found.name),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.datetimes(timezones=st.just(UTC))), max_size=5),
    st.integers(1, 8),
    st.integers(0, 5),
)
def test_every_intent_has_one_place_and_the_queue_one_limit(
    intents: list[PendingIntent], processed: list[tuple[str, datetime]], max_pending: int, per_tick: int
) -> None:
    limits = Limits(max_pending=max_pending, per_tick=per_tick)
    arranged = arrange(intents, processed, NOW, limits)
    places = Counter([verdict.intent for verdict in arranged.verdicts] + list(arranged.waiting))
    assert places == Counter(intents)
    assert len(arranged.waiting) <= max_pending
    assert list(arranged.waiting) == sorted(arranged.waiting, key=rank)
    finished = [verdict for verdict in arranged.verdicts if verdict.status in (Status.PROCESSED, Status.UNKNOWN)]
    assert len(finished) <= per_tick
    assert all(verdict.intent.category not in STARTS for verdict in finished)
    dropped = [verdict.intent for verdict in arranged.verdicts if verdict.status is Status.QUEUE_OVERFLOW]
    kept = [*arranged.waiting, *(verdict.intent for verdict in finished)]
    assert all(rank(keeper) < rank(loser) for keeper in kept for loser in dropped)
