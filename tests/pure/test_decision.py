"""The decision: precedence, reasons, and that nothing can starve an intent."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cycles.backoff import NO_FAILURES, Backoff, Failures
from orchestration.cycles.cycle import Cause, Cycle, CycleNumber, CycleState, JobName, Origin
from orchestration.intents.intent import Category, PendingIntent
from orchestration.phase.window import Interval, Window
from orchestration.tick.decision import CLEAR, Decision, DreamCycle, Noop, Phase, Reason, Reflection, decide, phase_blocker
from orchestration.tick.explain import explain
from orchestration.tick.observation import Observation, Policy

WINDOW = Window(time(3), time(7), "America/New_York")
TODAY = date(2026, 11, 21)
INSIDE = datetime(2026, 11, 21, 9, tzinfo=UTC)  # 04:00 in New York
OUTSIDE = datetime(2026, 11, 21, 15, tzinfo=UTC)
STEPS = Backoff(tuple(timedelta(minutes=m) for m in (1, 5, 15, 30)))
POLICY = Policy(phase_backoff=STEPS, dream_backoff=STEPS)
JUST_FAILED = timedelta(seconds=30)


def intent(name: str = "1_curiosity_x_00000000.json", category: Category = Category.DREAM_CYCLE) -> PendingIntent:
    return PendingIntent(
        name=name,
        intent_type="curiosity_x",
        priority=5,
        category=category,
        topic="x",
        content_sha="0",
        since=OUTSIDE,
        checksummed=True,
    )


def cycle(state: CycleState = CycleState.RUNNING, job: JobName = JobName.DREAM) -> Cycle:
    return Cycle(
        cycle=CycleNumber(7),
        job=job,
        state=state,
        token="t",
        origin=Origin(Cause.PROMOTIONS, "tick"),
        command=("true",),
        working_dir="",
        timeout=timedelta(seconds=1),
        phase_date=None,
        queued_at=INSIDE,
        started_at=INSIDE,
        ended_at=None,
        settled_at=None,
        cancel_asked_at=None,
        runner=None,
        result=None,
    )


def seen(
    now: datetime = OUTSIDE,
    *,
    maintenance: bool = False,
    active: Cycle | None = None,
    phase_done: bool = False,
    phase_failures: Failures = NO_FAILURES,
    missed: Interval | None = None,
    promotions: tuple[str, ...] = (),
    parked: tuple[str, ...] = (),
    left: tuple[str, ...] = (),
    dream_failures: Failures = NO_FAILURES,
    intents: tuple[PendingIntent, ...] = (),
) -> Observation:
    return Observation(
        now=now,
        maintenance=maintenance,
        active=active,
        window=WINDOW.containing(now),
        next_window=WINDOW.next_after(now),
        phase_done=phase_done,
        phase_failures=phase_failures,
        missed=missed,
        promotions=promotions,
        parked=parked,
        left=left,
        dream_failures=dream_failures,
        intents=intents,
    )


def reasons(decision: Decision) -> list[Reason]:
    return [finding.reason for finding in decision.findings if finding.reason not in CLEAR]


def test_a_quiet_world_gives_a_noop_with_all_of_its_reasons() -> None:
    decision = decide(seen(), POLICY)
    assert isinstance(decision, Noop)
    assert reasons(decision) == [Reason.OUTSIDE_PHASE_WINDOW, Reason.NO_UNACKED_PROMOTIONS, Reason.NO_INTENTS]


def test_a_noop_says_when_the_next_window_opens() -> None:
    evidence = next(f.evidence for f in decide(seen(), POLICY).findings if f.reason is Reason.OUTSIDE_PHASE_WINDOW)
    assert "2026-11-22 08:00:00Z" in evidence


def test_maintenance_stops_everything() -> None:
    decision = decide(seen(INSIDE, maintenance=True, promotions=("a",), intents=(intent(),)), POLICY)
    assert isinstance(decision, Noop)
    assert reasons(decision) == [Reason.MAINTENANCE_MODE]


@pytest.mark.parametrize("state", [CycleState.QUEUED, CycleState.RUNNING, CycleState.SUCCEEDED, CycleState.LOST])
def test_an_active_cycle_excludes_every_other(state: CycleState) -> None:
    decision = decide(seen(INSIDE, active=cycle(state), promotions=("a",), intents=(intent(),)), POLICY)
    assert isinstance(decision, Noop)
    assert reasons(decision) == [Reason.CYCLE_ACTIVE]


def test_phase_comes_first_inside_its_window() -> None:
    decision = decide(seen(INSIDE, promotions=("a",), intents=(intent(),)), POLICY)
    assert isinstance(decision, Phase)
    assert (decision.cause, decision.phase_date) == (Cause.WINDOW, TODAY)


def test_a_date_that_has_its_phase_leaves_the_way_to_promotions() -> None:
    decision = decide(seen(INSIDE, phase_done=True, promotions=("a", "b")), POLICY)
    assert isinstance(decision, DreamCycle)
    assert decision.promotions == ("a", "b")


def test_a_failing_phase_does_not_stop_promotions() -> None:
    failing = Failures(2, INSIDE - JUST_FAILED)
    decision = decide(seen(INSIDE, phase_failures=failing, promotions=("a",)), POLICY)
    assert isinstance(decision, DreamCycle)
    assert Reason.BACKING_OFF in reasons(decision)


def test_a_failed_phase_is_tried_again_when_its_wait_is_over() -> None:
    failing = Failures(2, INSIDE - timedelta(minutes=5))
    assert isinstance(decide(seen(INSIDE, phase_failures=failing), POLICY), Phase)


def test_a_missed_window_is_made_up_for_outside_the_window() -> None:
    decision = decide(seen(missed=WINDOW.on(TODAY), promotions=("a",)), POLICY)
    assert isinstance(decision, Phase)
    assert (decision.cause, decision.phase_date) == (Cause.MISSED_WINDOW, TODAY)


@pytest.mark.parametrize(
    "held_up",
    [
        seen(promotions=("a",), dream_failures=Failures(1, OUTSIDE - JUST_FAILED), intents=(intent(),)),
        seen(parked=("a",), intents=(intent(),)),
        seen(INSIDE, phase_failures=Failures(4, INSIDE - JUST_FAILED), intents=(intent(),)),
    ],
    ids=["promotions back off", "promotions are parked", "PHASE backs off"],
)
def test_an_intent_cannot_starve(held_up: Observation) -> None:
    decision = decide(held_up, POLICY)
    assert isinstance(decision, DreamCycle)
    assert (decision.cause, decision.topic, decision.promotions) == (Cause.INTENT, "x", ())


def test_promotions_come_before_intents() -> None:
    decision = decide(seen(promotions=("a",), intents=(intent(),)), POLICY)
    assert isinstance(decision, DreamCycle)
    assert decision.cause is Cause.PROMOTIONS


def test_the_first_pending_intent_is_served() -> None:
    decision = decide(seen(intents=(intent("first"), intent("second"))), POLICY)
    assert isinstance(decision, DreamCycle)
    assert decision.intent == "first"


@pytest.mark.parametrize(
    ("now", "phase_done", "expected"),
    [(OUTSIDE, False, None), (INSIDE, True, None), (INSIDE, False, TODAY)],
    ids=["outside the window", "date done", "date still due"],
)
def test_a_phase_by_intent_answers_the_date_only_while_that_is_due(
    now: datetime, phase_done: bool, expected: date | None
) -> None:
    backing_off = NO_FAILURES if phase_done else Failures(1, now - JUST_FAILED)
    world = seen(now, phase_done=phase_done, phase_failures=backing_off, intents=(intent(category=Category.PHASE),))
    decision = decide(world, POLICY)
    assert isinstance(decision, Phase)
    assert (decision.cause, decision.phase_date) == (Cause.INTENT, expected)


def test_the_blocker_of_a_phase_is_named_only_while_one_is_due() -> None:
    busy = seen(INSIDE, active=cycle())
    assert phase_blocker(busy, decide(busy, POLICY)) is Reason.CYCLE_ACTIVE
    failing = seen(INSIDE, phase_failures=Failures(1, INSIDE - JUST_FAILED))
    assert phase_blocker(failing, decide(failing, POLICY)) is Reason.BACKING_OFF
    for nothing_due in (seen(), seen(INSIDE, phase_done=True), seen(INSIDE)):
        assert phase_blocker(nothing_due, decide(nothing_due, POLICY)) is None


FAILURES = st.builds(
    Failures,
    in_a_row=st.integers(1, 6),
    last_ended_at=st.datetimes(datetime(2026, 11, 20), datetime(2026, 11, 23), timezones=st.just(UTC)),  # noqa: DTZ001
) | st.just(NO_FAILURES)
WORLDS = st.builds(
    seen,
    st.datetimes(datetime(2026, 11, 20), datetime(2026, 11, 23), timezones=st.just(UTC)),  # noqa: DTZ001
    maintenance=st.booleans(),
    active=st.sampled_from([None, cycle(CycleState.QUEUED), cycle()]),
    phase_done=st.booleans(),
    phase_failures=FAILURES,
    missed=st.sampled_from([None, WINDOW.on(TODAY)]),
    promotions=st.sampled_from([(), ("a",), ("a", "b")]),
    parked=st.sampled_from([(), ("p",)]),
    dream_failures=FAILURES,
    intents=st.sampled_from([(), (intent(),), (intent("p", Category.PHASE), intent())]),
)


@given(WORLDS)
def test_whatever_the_world_a_decision_explains_itself(world: Observation) -> None:
    decision = decide(world, POLICY)
    explained = explain(world, POLICY)
    asked = [one.finding for one in explained if one.asked]
    assert list(decision.findings) == asked, "explain prints what decide knew"
    assert sum(one.decided for one in explained) <= 1
    if isinstance(decision, Noop):
        assert reasons(decision), "a NOOP without a reason would leave an operator with nothing"


@given(WORLDS)
def test_nothing_is_started_beside_an_active_cycle_or_in_maintenance(world: Observation) -> None:
    if world.maintenance or world.active is not None:
        assert isinstance(decide(world, POLICY), Noop)


@given(WORLDS)
def test_a_pending_intent_leads_to_some_work_unless_all_work_is_stopped(world: Observation) -> None:
    if world.intents and not world.maintenance and world.active is None:
        assert not isinstance(decide(world, POLICY), Noop)


REFLECTION = intent("0_idle_reflection_00000000.json", Category.REFLECTION)._replace(priority=10)


def test_a_reflection_starts_when_nothing_else_waits() -> None:
    decision = decide(seen(intents=(REFLECTION,)), POLICY)
    assert isinstance(decision, Reflection)
    assert (decision.cause, decision.intent) == (Cause.INTENT, REFLECTION.name)


@pytest.mark.parametrize(
    ("world", "starts"),
    [
        (seen(INSIDE, intents=(REFLECTION,)), Phase),
        (seen(missed=WINDOW.on(TODAY), intents=(REFLECTION,)), Phase),
        (seen(promotions=("a",), intents=(REFLECTION,)), DreamCycle),
        (seen(intents=(REFLECTION, intent(category=Category.PHASE))), Phase),
        (seen(intents=(REFLECTION, intent())), DreamCycle),
        (seen(active=cycle(), intents=(REFLECTION,)), Noop),
        (seen(maintenance=True, intents=(REFLECTION,)), Noop),
    ],
)
def test_a_reflection_precedes_nothing_whatever_its_priority(world: Observation, starts: type) -> None:
    assert isinstance(decide(world, POLICY), starts)
