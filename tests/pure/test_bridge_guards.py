"""Rates and loop guards, over all short stories that agents can write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestration.bridge import guards
from orchestration.bridge.guards import Limits
from orchestration.bridge.message import Event
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Finding, Progress, Rate

START = datetime(2026, 11, 21, 8, tzinfo=UTC)
KINDS = ("finding_reported", "fix_pushed", "finding_verified", "finding_rejected")
TURNS = st.one_of(
    st.none(),
    st.sampled_from(["deployed", "tested"]).map(Event),
    st.builds(Event, st.sampled_from(KINDS), st.sampled_from(["F-1", "F-2"])),
)


@given(st.lists(st.integers(0, 20_000), max_size=60), st.integers(1, 6))
def test_a_rate_lets_through_no_more_than_its_limit_and_says_when_to_come_again(gaps: list[int], limit: int) -> None:
    rate, now, passed = Rate(), START, list[datetime]()
    for gap in gaps:
        now += timedelta(milliseconds=gap)
        try:
            guards.check_rate("agent", rate, limit, now)
        except Refused as refused:
            found, wait = refused.code, refused.retry_after or 0.0
        else:
            rate = rate.counted(now)
            passed.append(now)
            continue
        assert found is Code.RATE_LIMITED
        assert wait > 0
        guards.check_rate("agent", rate, limit, now + timedelta(seconds=wait))
    for first, last in zip(passed, passed[2 * limit :], strict=False):
        assert last - first >= timedelta(seconds=60)  # counted by the minute of the clock: never twice the limit in one


def test_no_limit_refuses_nothing() -> None:
    guards.check_rate("thread", Rate(minute=int(START.timestamp() // 60), posts=10**9), 0, START)


@given(st.lists(TURNS, max_size=80), st.integers(1, 25))
def test_a_thread_is_blocked_exactly_after_so_many_turns_without_a_new_type(story: list[Event | None], most: int) -> None:
    progress, seen, since = Progress(), set[str](), 0
    for event in story:
        progress = guards.turned(progress, "a", event)
        if event is not None and event.type not in seen:
            seen.add(event.type)
            since = 0
        else:
            since += 1
        assert bool(guards.tripped(progress, None, event, Limits(max_turns=most))) is (since >= most)


@given(st.lists(TURNS, max_size=40), st.integers(1, 4))
@example([Event("finding_reported", "F-1")] * 8, 3)
def test_a_finding_blocks_its_thread_at_every_so_many_claims(story: list[Event | None], most: int) -> None:
    limits = Limits(max_turns=0, max_repeats=most)
    known: dict[str, Finding] = {}
    claims: dict[str, int] = {}
    for event in story:
        if event is None or not event.finding:
            assert not guards.tripped(Progress(), None, event, limits)
            continue
        before = known.get(event.finding)
        finding = guards.told(before, event, sender="a", message_id="m")
        expected = False
        if event.type == "finding_reported" or (event.type == "finding_rejected" and before):
            claims[event.finding] = claims.get(event.finding, 0) + 1
            expected = claims[event.finding] % most == 0
        elif event.type == "finding_verified":
            claims.pop(event.finding, None)
        assert bool(guards.tripped(Progress(), finding, event, limits)) is expected
        if finding is None:
            assert before is None
            assert event.type != "finding_reported"
            continue
        known[event.finding] = finding
        assert guards.is_open(finding) is (event.type != "finding_verified")
        assert finding.reports == claims.get(event.finding, 0)


@pytest.mark.parametrize("limits", [Limits(max_turns=0, max_repeats=0)])
def test_guards_can_be_turned_off(limits: Limits) -> None:
    finding = Finding(finding_id="F", state="finding_reported", reports=99, message_id="m", reported_by="a")
    assert guards.tripped(Progress(turns=999), finding, Event("finding_reported", "F"), limits) == ""


def test_types_made_up_without_end_are_no_progress_without_end() -> None:
    progress = Progress()
    for number in range(guards.MAX_TYPES + 20):
        progress = guards.turned(progress, "a", Event(f"made-up-{number}"))
    assert (progress.turns, len(progress.event_types)) == (20, guards.MAX_TYPES)
