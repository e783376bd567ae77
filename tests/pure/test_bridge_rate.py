"""How posts of the last minute are counted, and when there is room again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestration.bridge.state import Rate

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_posts_of_this_minute_count_in_full_and_those_before_by_their_share() -> None:
    rate = Rate().counted(at(10), 6)
    assert rate.within(at(10)) == rate.within(at(59)) == 6
    assert rate.within(at(60)) == 6
    assert rate.within(at(90)) == 3
    assert rate.within(at(120)) == 0
    assert rate.counted(at(90)).within(at(90)) == 4
    assert rate.counted(at(300)).within(at(300)) == 1


def test_a_clock_that_is_set_back_forgets_nothing() -> None:
    rate = Rate().counted(at(70), 3)
    assert rate.counted(at(10)).within(at(70)) == 4


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 20)), max_size=20),
    st.integers(1, 30),
    st.floats(0, 60),
)
def test_after_the_wait_there_is_room_and_there_was_none_before(
    posts: list[tuple[float, int]], limit: int, later: float
) -> None:
    rate, now = Rate(), 0.0
    for pause, count in posts:
        now += pause
        rate = rate.counted(at(now), count)
    now += later
    wait = rate.seconds_until(limit, at(now))
    assert (wait == 0) == (rate.within(at(now)) < limit)
    assert rate.within(at(now + wait)) < limit
    assert 0 <= wait < 121
    if wait > 1:
        assert rate.within(at(now + wait - 1)) >= limit
