"""The heartbeat: every minute shows the best of its ticks, or why it has none; the stretches have no hole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.exits import Exit
from orchestration.pulse.health import Mode
from orchestration.pulse.heartbeat import SPAN, Now, Seen, beat_of, heartbeat, span
from orchestration.pulse.loop_health import DECIDED, Beat, Heartbeat

MINUTE = timedelta(minutes=1)
START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
TICKED = (Beat.PHASE, Beat.DREAM_CYCLE, Beat.NOOP, Beat.FAILED, Beat.LOCK_HELD, Beat.HALTED, Beat.DISABLED)


def seen(minute: float, beat: Beat = Beat.NOOP, boot: str = "a", evidence: str = "") -> Seen:
    at = START + minute * MINUTE
    return Seen(at, at, beat, boot, evidence)


def shown(
    *ticks: Seen, before: Seen | None = None, minutes: int = 10, boot: str = "a", mode: Mode = Mode.ENABLED
) -> Heartbeat:
    now = Now(START + minutes * MINUTE, boot, mode)
    return heartbeat(ticks, before=before, start=START, minutes=minutes, now=now)


def strip(found: Heartbeat) -> list[tuple[Beat, int]]:
    return [(one.beat, one.minutes) for one in found.stretches]


def test_minutes_before_the_first_tick_ever_are_no_gap() -> None:
    found = shown(*(seen(minute) for minute in range(4, 10)))
    assert strip(found) == [(Beat.BEFORE, 4), (Beat.NOOP, 6)]
    assert found.gaps == ()


def test_nothing_at_all_is_before() -> None:
    assert strip(shown()) == [(Beat.BEFORE, 10)]


def test_a_gap_after_which_the_host_was_started_again_means_that_it_was_down() -> None:
    found = shown(seen(0), seen(1), *(seen(minute, boot="b") for minute in range(6, 10)), boot="b")
    assert strip(found) == [(Beat.NOOP, 2), (Beat.HOST_DOWN, 4), (Beat.NOOP, 4)]
    assert found.gaps[0].evidence == "no tick since 2026-11-20T08:01:00Z, and the host was started again after it"


def test_a_gap_without_a_new_boot_is_unknown_and_asks_for_the_timer() -> None:
    found = shown(seen(0), *(seen(minute) for minute in range(4, 10)))
    assert strip(found) == [(Beat.NOOP, 1), (Beat.UNKNOWN, 3), (Beat.NOOP, 6)]
    assert "the host was up: is the timer enabled?" in found.gaps[0].evidence


def test_a_gap_at_the_beginning_is_explained_by_the_tick_before_it() -> None:
    later = [seen(minute, boot="b") for minute in range(3, 10)]
    assert strip(shown(*later, before=seen(-500, boot="a"), boot="b"))[0] == (Beat.HOST_DOWN, 3)
    assert strip(shown(*later, before=seen(-500, boot="b"), boot="b"))[0] == (Beat.UNKNOWN, 3)


@pytest.mark.parametrize(
    ("boot", "mode", "beat"),
    [
        ("b", Mode.DISABLED, Beat.HOST_DOWN),
        ("a", Mode.DISABLED, Beat.DISABLED),
        ("a", Mode.HALTED, Beat.HALTED),
        ("a", Mode.MAINTENANCE, Beat.UNKNOWN),
        ("a", Mode.ENABLED, Beat.UNKNOWN),
    ],
)
def test_a_gap_that_lasts_is_explained_by_how_things_are_now(boot: str, mode: Mode, beat: Beat) -> None:
    found = shown(seen(0), seen(1), boot=boot, mode=mode)
    assert strip(found) == [(Beat.NOOP, 2), (beat, 8)]
    assert found.gaps[0].evidence


def test_ticks_a_minute_apart_that_skip_a_minute_of_the_clock_leave_no_gap() -> None:
    found = shown(seen(0.99), seen(2.01), seen(3), seen(4), minutes=5)
    assert strip(found) == [(Beat.NOOP, 5)]


def test_a_phase_is_not_shown_for_a_minute_that_had_none() -> None:
    found = shown(seen(0.99), seen(2.01, Beat.PHASE), minutes=3)
    assert strip(found) == [(Beat.NOOP, 2), (Beat.PHASE, 1)]


def test_what_turned_ticks_away_is_told_with_the_newest_evidence() -> None:
    found = shown(*(seen(minute, Beat.FAILED, evidence=f"disk full {minute}") for minute in range(10)))
    assert strip(found) == [(Beat.FAILED, 10)]
    assert found.gaps[0].evidence == "disk full 9"


@pytest.mark.parametrize(
    ("decision", "code", "beat"),
    [
        ("phase", Exit.DONE, Beat.PHASE),
        ("dream_cycle", Exit.DONE, Beat.DREAM_CYCLE),
        ("noop", Exit.FAILED, Beat.NOOP),
        ("skipped", Exit.DISABLED, Beat.DISABLED),
        ("skipped", Exit.HALTED, Beat.HALTED),
        ("skipped", Exit.LOCK_HELD, Beat.LOCK_HELD),
        ("skipped", Exit.UNWRITABLE, Beat.FAILED),
        ("skipped", Exit.DEFECT, Beat.FAILED),
    ],
)
def test_a_record_says_what_a_tick_did(decision: str, code: Exit, beat: Beat) -> None:
    assert beat_of(decision, code) is beat


@pytest.mark.parametrize(
    ("now", "newest", "end"),
    [
        (START + timedelta(seconds=30), START + timedelta(seconds=5), START + MINUTE),  # it has ticked in this minute
        (START + timedelta(seconds=5), START - timedelta(seconds=50), START),  # not yet, and it is too early to ask
        (START + timedelta(seconds=50), START - timedelta(seconds=50), START + MINUTE),  # not yet, and it is due
        (START, None, START + MINUTE),
        (START, START + timedelta(hours=1), START + MINUTE),  # a clock that was set back
    ],
)
def test_the_span_ends_with_the_minute_in_which_a_tick_is_due(now: datetime, newest: datetime | None, end: datetime) -> None:
    start, minutes = span(now, newest)
    assert minutes == SPAN
    assert start + minutes * MINUTE == end


ticks = st.lists(
    st.builds(
        seen,
        st.integers(0, 30 * 60).map(lambda seconds: seconds / 60),
        st.sampled_from(TICKED),
        st.sampled_from("ab"),
        st.sampled_from(["", "one", "two"]),
    ),
    max_size=25,
).map(lambda found: sorted(found, key=lambda one: one.first))


@given(ticks, st.none() | st.builds(seen, st.just(-3.0), st.just(Beat.NOOP), st.sampled_from("ab")), st.sampled_from(Mode))
def test_every_minute_has_its_beat_and_every_gap_its_evidence(found: list[Seen], before: Seen | None, mode: Mode) -> None:
    result = shown(*found, before=before, minutes=30, mode=mode)
    assert result.stretches[0].start == result.start == START
    for one, after in zip(result.stretches, result.stretches[1:], strict=False):
        assert one.start + one.minutes * MINUTE == after.start
        assert one.beat is not after.beat
    assert sum(one.minutes for one in result.stretches) == 30
    by_minute = [one.beat for one in result.stretches for _ in range(one.minutes)]
    for minute, beat in enumerate(by_minute):
        here = [one.beat for one in found if START + minute * MINUTE <= one.first < START + (minute + 1) * MINUTE]
        if here:
            assert beat is min(here, key=list(Beat).index)
        elif before is None and all(one.first >= START + minute * MINUTE for one in found):
            assert beat is Beat.BEFORE
        else:
            assert beat is not Beat.BEFORE
    assert all(bool(one.evidence) or one.beat in TICKED for one in result.gaps)
    assert all(not one.evidence for one in result.stretches if one.beat in DECIDED)
