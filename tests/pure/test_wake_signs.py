"""What ticks judge waking by, and what the page shows: from triggers and the time alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestration.bridge.wake import signs, telling
from orchestration.bridge.wake.state import Attempt, Code, Outcome, Status, Wake, Way
from orchestration.pulse import agents_evidence, metrics
from orchestration.pulse.judgement import WakeSigns
from orchestration.store.instants import to_text

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OPEN = Wake(
    trigger_id="trg_1",
    workspace_id="kloros",
    thread_id="thr_1",
    agent_id="reviewer",
    reason="1 unread",
    prompt="",
    requested_by="(supervisor)",
    created_at=NOW - 20 * MINUTE,
    due_at=NOW,
)


def attempt(**given: Any) -> Attempt:
    return Attempt(**{"number": 1, "way": Way.LIVE, "began_at": NOW - MINUTE, **given})


def dead(ago: timedelta = MINUTE, code: Code = Code.WAKE_FAILED, **given: Any) -> Wake:
    ended = {"status": Status.DEAD_LETTERED, "outcome": Outcome.DEAD_LETTERED, "code": code, "ended_at": NOW - ago}
    return replace(OPEN, **{**ended, **given})


def done(**given: Any) -> Wake:
    return replace(OPEN, status=Status.DONE, outcome=Outcome.TRIGGERED, ended_at=NOW, **given)


def test_the_signs_are_those_that_ticks_read() -> None:
    assert {"told_at", "serving", *signs.signs([], NOW)} == set(WakeSigns._fields)


@pytest.mark.parametrize(
    ("wakes", "count"),
    [
        ([], 0),
        ([dead()], 1),
        ([dead(DAY)], 1),
        ([dead(DAY + MINUTE)], 0),
        ([done(), dead()], 0),
        ([dead(), done()], 1),
        ([OPEN, dead()], 0),
        ([replace(OPEN, agent_id="other"), dead()], 1),
        ([dead(), dead(HOUR)], 1),
        ([replace(dead(), status=Status.CANCELLED)], 0),
    ],
    ids=["none", "one", "of a day", "older", "answered", "after an answer", "tried again", "another", "twice", "cancelled"],
)
def test_what_was_given_up_counts_for_a_day_unless_something_came_of_a_later_one(wakes: list[Wake], count: int) -> None:
    found = signs.signs(wakes, NOW)
    assert (found["dead"], bool(found["dead_since"]), bool(found["dead_trigger"])) == (count, count > 0, count > 0)


def test_a_trigger_waits_unless_an_attempt_is_under_way() -> None:
    older = replace(OPEN, created_at=NOW - HOUR, agent_id="executioner")
    found = signs.signs([OPEN, older], NOW)
    assert (found["waiting"], found["waiting_agent"], found["waiting_since"]) == (2, "executioner", to_text(NOW - HOUR))
    found = signs.signs([OPEN, replace(older, attempts=(attempt(),))], NOW)
    assert (found["waiting"], found["waiting_agent"]) == (2, "reviewer")
    assert signs.signs([done()], NOW)["waiting_since"] is None


def test_what_had_no_runtime_is_told_apart() -> None:
    found = signs.signs([dead(code=Code.RUNTIME_UNMANAGED), replace(dead(), agent_id="other")], NOW)
    assert (found["dead"], found["unmanaged"], found["unmanaged_agent"]) == (2, 1, "reviewer")


@pytest.mark.parametrize(("ago", "count"), [(HOUR, 1), (HOUR + MINUTE, 0)])
def test_a_collision_counts_for_an_hour(ago: timedelta, count: int) -> None:
    row = attempt(ended_at=NOW - ago, outcome=Outcome.DEFERRED, code=Code.DEFER_TIMEOUT)
    busy = attempt(ended_at=NOW, outcome=Outcome.DEFERRED, code=Code.OPERATOR_BUSY)
    assert signs.signs([done(attempts=(busy, row))], NOW)["collided"] == count


def test_the_funnel_is_of_a_day_and_open_ones_come_first() -> None:
    old = replace(OPEN, trigger_id="trg_0", created_at=NOW - 2 * DAY)
    wakes = [done(trigger_id="trg_3", attempts=(attempt(),), created_at=NOW), dead(trigger_id="trg_2"), old]
    found = signs.shown(wakes, NOW)
    assert (found["funnel"]["made"], found["funnel"]["attempted"], found["funnel"]["triggered"]) == (2, 1, 1)
    assert (found["funnel"]["dead_lettered"], found["funnel"]["open"], found["open"]) == (1, 0, 1)
    assert [one["trigger_id"] for one in found["triggers"]] == ["trg_0", "trg_3", "trg_2"]


def test_ticks_and_supervisors_agree_on_names() -> None:
    assert tuple(Outcome) == metrics.WAKE_RESULTS
    assert metrics.WAKE_LATENCY_BUCKETS == telling.LATENCY_BUCKETS
    assert agents_evidence.SUPERVISOR_TELLS_WITHIN.total_seconds() > telling.AGAIN_AFTER * 2


def test_what_could_not_be_told_is_counted_once_more() -> None:
    counted = telling.Counted()
    counted.attempts[Outcome.FAILED] += 1
    counted.latencies.append(0.5)
    taken = counted.take()
    assert not counted.attempts
    counted.attempts[Outcome.FAILED] += 1
    counted.put_back(taken)
    assert (counted.attempts[Outcome.FAILED], counted.latencies) == (2, [0.5])
