"""The verdict: each condition alone, its boundary, the precedence, and how long it must have held."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.pulse import agents_evidence, evidence, health
from orchestration.pulse.health import RULES, Condition, Mode, Signs, Verdict, judge
from orchestration.pulse.judgement import BridgeSigns, WakeSigns

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
WELL = Signs(
    now=NOW,
    last_tick_at=NOW - timedelta(seconds=40),
    last_attempt_at=NOW - timedelta(seconds=40),
    tick_exits=(0, 0, 0),
    contentions=0,
    iteration_at=None,
    loop_failure_limit=False,
    archives_stale=False,
    active_cycle=None,
    active_deadline=None,
    phase_date="2026-11-21",
    phase_result="succeeded",
    phase_reason="window: cycle 7 succeeded",
    phase_ends=("succeeded", "failed", "succeeded"),
    phase_seconds=(600.0,) * 8,
    dream_ends=("succeeded", "failed", "succeeded", "succeeded"),
    lost=0,
    promotions_unacked=20,
    promotions_parked=0,
    escrow_pending=0,
    escrow_since=None,
    escrow_expires=None,
    rolled_back=None,
    intents_pending=49,
    intents_max=50,
    intents_dropped=0,
    urgent=(),
    federation_since=None,
    bridge=None,
    wake=None,
    disk_free=5 * 1024**3,
    disk_low_below=5 * 1024**3,
)
ONLY_LOOP: dict[str, Any] = {"last_tick_at": None, "last_attempt_at": None, "tick_exits": (), "phase_result": None}
MOMENT = timedelta(microseconds=1)
TALKING = BridgeSigns(
    told_at=NOW,
    serving=True,
    blocked=0,
    blocked_since=None,
    blocked_thread=None,
    behind=1,
    unread_since=NOW,
    unread_by="reviewer",
    unread_thread="thr_1",
)
WAKING = WakeSigns(
    told_at=NOW,
    serving=True,
    dead=0,
    dead_since=None,
    dead_trigger=None,
    waiting=1,
    waiting_since=NOW,
    waiting_agent="reviewer",
    unmanaged=0,
    unmanaged_since=None,
    unmanaged_agent=None,
    collided=0,
    collided_since=None,
    collided_agent=None,
)

# For each condition: signs that just do not show it, and signs that just do.
EDGES: dict[Condition, tuple[dict[str, Any], dict[str, Any]]] = {
    Condition.NO_TICK_YET: ({**ONLY_LOOP, "iteration_at": NOW}, ONLY_LOOP),
    Condition.DISABLED: ({}, {"switches": (Mode.DISABLED,)}),
    Condition.HALTED: ({}, {"switches": (Mode.HALTED,)}),
    Condition.STORE_UNREACHABLE: (
        {"refused": (Condition.HOST_DOUBLED, "")},
        {"refused": (Condition.STORE_UNREACHABLE, "the server does not answer")},
    ),
    Condition.HOST_DOUBLED: ({}, {"refused": (Condition.HOST_DOUBLED, "another machine is called lab-1")}),
    Condition.TICK_STALE: (
        {"last_tick_at": NOW - evidence.TICKS_MISSED},
        {"last_tick_at": NOW - evidence.TICKS_MISSED - MOMENT},
    ),
    Condition.NOBODY_LEADS: (
        {"scope": ((Condition.NOBODY_LEADS, NOW - evidence.TICKS_MISSED + MOMENT, "no host leads"),)},
        {"scope": ((Condition.NOBODY_LEADS, NOW - evidence.TICKS_MISSED, "no host leads"),)},
    ),
    Condition.LOOP_STOPPED: ({}, {"loop_failure_limit": True}),
    Condition.LOOP_SILENT: (
        {**ONLY_LOOP, "iteration_at": NOW - evidence.SILENT_AFTER},
        {**ONLY_LOOP, "iteration_at": NOW - evidence.SILENT_AFTER - MOMENT},
    ),
    Condition.TICK_FAILING: ({"tick_exits": (69, 69, 0)}, {"tick_exits": (69, 74, 1)}),
    Condition.PHASE_FAILING: (
        {"phase_ends": ("failed", "failed", "cancelled")},
        {"phase_ends": ("failed", "timed_out", "lost")},
    ),
    Condition.PHASE_MISSED: ({}, {"phase_result": "skipped"}),
    Condition.DREAM_FAILING: (
        {"dream_ends": ("failed", "failed", "lost")},
        {"dream_ends": ("failed", "failed", "succeeded", "lost")},
    ),
    Condition.CYCLE_OVERDUE: (
        {"active_cycle": 9, "active_deadline": NOW - evidence.OVERDUE_AFTER},
        {"active_cycle": 9, "active_deadline": NOW - evidence.OVERDUE_AFTER - MOMENT},
    ),
    Condition.CYCLE_LOST: ({}, {"lost": 1}),
    Condition.HOST_SILENT: ({}, {"scope": ((Condition.HOST_SILENT, NOW, "lab-2 is silent"),)}),
    Condition.CLOCK_OFFSET: ({}, {"scope": ((Condition.CLOCK_OFFSET, None, "lab-2 is an hour ahead"),)}),
    Condition.MAINTENANCE: ({}, {"switches": (Mode.MAINTENANCE,)}),
    Condition.LOCK_CONTENTION: ({"contentions": evidence.CONTENTIONS}, {"contentions": evidence.CONTENTIONS + 1}),
    Condition.PHASE_DURATION: (
        {"phase_seconds": (1800.0, *(600.0,) * 8)},
        {"phase_seconds": (1801.0, *(600.0,) * 8)},
    ),
    Condition.PROMOTIONS_PARKED: ({}, {"promotions_parked": 1}),
    Condition.PROMOTIONS_PILING_UP: ({}, {"promotions_unacked": evidence.UNACKED_MANY + 1}),
    Condition.ESCROW_WAITING: (
        {
            "escrow_pending": 1,
            "escrow_since": NOW - evidence.ESCROW_AFTER,
            "escrow_expires": NOW + evidence.ESCROW_EXPIRES,
        },
        {"escrow_pending": 1, "escrow_since": NOW - evidence.ESCROW_AFTER - MOMENT, "escrow_expires": None},
    ),
    Condition.BASELINE_ROLLED_BACK: ({}, {"rolled_back": (42, NOW - timedelta(hours=3), "-7 %")}),
    Condition.INTENTS_OVERFLOWING: ({}, {"intents_pending": 50}),
    Condition.URGENT_ALERT: ({}, {"urgent": ("alert_critical_line",)}),
    Condition.ARCHIVES_STALE: ({}, {"archives_stale": True}),
    Condition.FEDERATION_BEHIND: (
        {"federation_since": NOW - evidence.FEDERATION_AFTER},
        {"federation_since": NOW - evidence.FEDERATION_AFTER - MOMENT},
    ),
    Condition.BRIDGE_SILENT: (
        {"bridge": TALKING._replace(told_at=NOW - agents_evidence.BRIDGE_TELLS_WITHIN)},
        {"bridge": TALKING._replace(told_at=NOW - agents_evidence.BRIDGE_TELLS_WITHIN - MOMENT)},
    ),
    Condition.THREADS_BLOCKED: (
        {"bridge": TALKING},
        {"bridge": TALKING._replace(blocked=1, blocked_since=NOW, blocked_thread="thr_1")},
    ),
    Condition.MESSAGES_UNREAD: (
        {"bridge": TALKING._replace(unread_since=NOW - agents_evidence.UNREAD_AFTER)},
        {"bridge": TALKING._replace(unread_since=NOW - agents_evidence.UNREAD_AFTER - MOMENT)},
    ),
    Condition.SUPERVISOR_SILENT: (
        {"wake": WAKING._replace(told_at=NOW - agents_evidence.SUPERVISOR_TELLS_WITHIN)},
        {"wake": WAKING._replace(told_at=NOW - agents_evidence.SUPERVISOR_TELLS_WITHIN - MOMENT)},
    ),
    Condition.WAKES_DEAD_LETTERED: (
        {"wake": WAKING},
        {"wake": WAKING._replace(dead=1, dead_since=NOW, dead_trigger="trg_1")},
    ),
    Condition.WAKES_WAITING: (
        {"wake": WAKING._replace(waiting_since=NOW - agents_evidence.WAKE_WAITS)},
        {"wake": WAKING._replace(waiting_since=NOW - agents_evidence.WAKE_WAITS - MOMENT)},
    ),
    Condition.AGENTS_UNMANAGED: (
        {"wake": WAKING},
        {"wake": WAKING._replace(unmanaged=1, unmanaged_since=NOW, unmanaged_agent="reviewer")},
    ),
    Condition.PROMPTS_COLLIDED: (
        {"wake": WAKING},
        {"wake": WAKING._replace(collided=1, collided_since=NOW, collided_agent="reviewer")},
    ),
    Condition.DISK_LOW: ({}, {"disk_free": 5 * 1024**3 - 1}),
}
LONG_AGO: dict[str, datetime] = dict.fromkeys(Condition, NOW - timedelta(days=1))


def test_nothing_wrong_is_ok() -> None:
    assert judge(WELL, {}) == health.Judgement(Verdict.OK, (), ())


@pytest.mark.parametrize("condition", Condition)
def test_a_condition_holds_from_its_edge_on_and_gives_its_verdict(condition: Condition) -> None:
    below, beyond = EDGES[condition]
    assert judge(WELL._replace(**below), LONG_AGO).causes == ()
    judgement = judge(WELL._replace(**beyond), LONG_AGO)
    (cause,) = judgement.causes
    rule = next(rule for rule in RULES if rule.condition is condition)
    assert (cause.condition, cause.verdict, judgement.verdict) == (condition, rule.verdict, rule.verdict)
    assert cause.evidence
    assert cause.advice.split()[0] in ("klorosctl", "systemctl")


def test_every_condition_has_one_rule() -> None:
    assert [rule.condition for rule in RULES] == list(Condition)


def test_the_worst_cause_is_the_verdict_and_all_are_told_in_order() -> None:
    signs = WELL._replace(disk_free=0, promotions_parked=2, switches=(Mode.HALTED,), phase_result="skipped")
    judgement = judge(signs, {})
    assert judgement.verdict is Verdict.STOPPED
    assert [cause.condition for cause in judgement.causes] == [
        Condition.HALTED,
        Condition.PHASE_MISSED,
        Condition.PROMOTIONS_PARKED,
        Condition.DISK_LOW,
    ]


def test_a_condition_that_must_have_held_for_an_hour_is_remembered_before_it_counts() -> None:
    signs = WELL._replace(promotions_unacked=21)
    young = judge(signs, {})
    assert (young.verdict, young.causes) == (Verdict.OK, ())
    assert [(condition, since) for condition, since, _ in young.holding] == [(Condition.PROMOTIONS_PILING_UP, NOW)]
    since: dict[str, datetime] = {Condition.PROMOTIONS_PILING_UP: NOW - timedelta(hours=1)}
    (cause,) = judge(signs, since).causes
    assert cause.since == NOW - timedelta(hours=1)


def test_a_beginning_that_lies_ahead_is_now() -> None:
    """The clock was put back: what began "tomorrow" must not be waited for until then."""
    (cause,) = judge(WELL._replace(lost=1), {Condition.CYCLE_LOST: NOW + timedelta(days=1)}).causes
    assert cause.since == NOW


def test_an_entry_of_escrow_is_told_when_it_has_waited_long_or_is_about_to_expire() -> None:
    young = NOW - timedelta(hours=2)
    held = WELL._replace(escrow_pending=3, escrow_since=young, escrow_expires=NOW + evidence.ESCROW_EXPIRES - MOMENT)
    (soon,) = judge(held, {}).causes
    assert (soon.since, soon.evidence) == (young, "3 in escrow wait for a person, the next expires in 23 h 59 min")
    both = held._replace(escrow_since=NOW - timedelta(hours=30), escrow_expires=NOW - timedelta(minutes=5))
    (late,) = judge(both, {}).causes
    assert late.evidence == "3 in escrow wait for a person, the oldest for 1 d 6 h, the next expires in 0 min"


def test_a_rollback_is_told_with_its_version_and_why_since_it_happened() -> None:
    at = NOW - timedelta(hours=3)
    (cause,) = judge(WELL._replace(rolled_back=(42, at, "-7 % in the median")), {}).causes
    assert (cause.since, cause.evidence) == (at, "version 42 was rolled back automatically: -7 % in the median")


def test_a_host_without_a_tick_is_unknown_and_never_ok() -> None:
    assert judge(WELL._replace(**ONLY_LOOP), {}).verdict is Verdict.UNKNOWN


def test_where_ticks_are_at_work_the_loop_may_rest() -> None:
    assert judge(WELL._replace(iteration_at=NOW - timedelta(days=9)), {}).verdict is Verdict.OK


def test_the_reference_has_each_condition_with_its_verdict() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "reference", "loop-health.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    told = {row[1].strip(" `"): row[2].strip(" `") for row in rows if row[2].strip(" `") in list(Verdict)}
    assert told == {str(rule.condition): str(rule.verdict) for rule in RULES}
