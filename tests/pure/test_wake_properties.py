"""What must hold of waking whatever the case: over arbitrary cases, and over courses in which anything may happen."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestration.bridge.state import Session
from orchestration.bridge.wake import action as act
from orchestration.bridge.wake import trigger
from orchestration.bridge.wake.limits import Limits, Means
from orchestration.bridge.wake.observation import Seen, Turn, Turned
from orchestration.bridge.wake.policy import WITH_TRIGGER, WITHOUT_TRIGGER, decide
from orchestration.bridge.wake.port import Liveness, Probe
from orchestration.bridge.wake.state import Attempt, Case, Code, Outcome, Status, Wake, Way
from orchestration.bridge.wire import ManagementMode, SessionStatus, ThreadStatus
from tests.pure.waking import HOUR, LIMITS, ME, MINUTE, NOW, OTHER, SECOND, Course, World, case, session, wake

BEGINS = act.Deliver | act.Press | act.Resume | act.Spawn
IDS = st.sampled_from(["tmux:1:%3", "tmux:1:%4", "past", "older"])
SPANS = st.sampled_from([0, 1, 4, 8, 19, 20, 30, 59, 60, 61, 89, 91, 299, 899, 901, 3600, 43199, 43201, 100_000])
INSTANTS = SPANS.map(lambda seconds: NOW - seconds * SECOND)
WHENEVER = st.one_of(INSTANTS, SPANS.map(lambda seconds: NOW + seconds * SECOND))
WAYS = st.sets(st.sampled_from(Way)).map(frozenset)
PROBES = st.builds(Probe, liveness=st.sampled_from(Liveness), typed_at=st.none() | WHENEVER)

SESSIONS = st.builds(
    session,
    IDS,
    management_mode=st.sampled_from(ManagementMode),
    resumable=st.booleans(),
    status=st.sampled_from(SessionStatus),
    heartbeat_at=WHENEVER,
)


@st.composite
def attempts(draw: st.DrawFn) -> tuple[Attempt, ...]:
    """Rows of one trigger, in order; the last one may be in flight."""
    rows = []
    began = sorted(draw(st.lists(INSTANTS, max_size=6)))
    for number, at in enumerate(began, 1):
        way = draw(st.sampled_from(Way))
        outcomes = [Outcome.FAILED, Outcome.DEFERRED, *([None] if number == len(began) else [])]
        outcome = draw(st.sampled_from(outcomes)) if way is Way.LIVE else draw(st.sampled_from([outcomes[0], outcomes[-1]]))
        outcome = Outcome.FAILED if outcome is Outcome.DEFERRED and way is not Way.LIVE else outcome
        rows.append(
            Attempt(
                number=number,
                way=way,
                session_id="" if way is Way.SPAWN else draw(IDS),
                holder=draw(st.sampled_from([ME, OTHER])),
                began_at=at,
                cursor=draw(st.integers(0, 9)),
                ended_at=at if outcome else None,
                outcome=outcome,
                code=draw(st.none() | st.sampled_from(Code)) if outcome else None,
            )
        )
    return tuple(rows)


OPEN_WAKES = st.builds(
    wake,
    status=st.sampled_from(sorted(trigger.OPEN)),
    holder=st.sampled_from(["", ME, OTHER]),
    requested_by=st.sampled_from([trigger.SUPERVISOR, "executioner"]),
    forced=st.booleans(),
    created_at=INSTANTS,
    due_at=WHENEVER,
    lease_until=st.none() | WHENEVER,
    deferred_at=st.none() | INSTANTS,
    renewed_at=st.none() | INSTANTS,
    attempts=attempts(),
)
ENDED_WAKES = st.builds(
    wake,
    status=st.sampled_from(sorted(trigger.ENDED)),
    outcome=st.none() | st.sampled_from(Outcome),
    code=st.none() | st.sampled_from(Code),
    created_at=INSTANTS,
    ended_at=INSTANTS,
    attempts=attempts(),
)
ANY_WAKE = st.none() | OPEN_WAKES | ENDED_WAKES
WITHOUT = st.none() | ENDED_WAKES


def newest_first(instants: list[datetime]) -> tuple[datetime, ...]:
    return tuple(sorted(instants, reverse=True))


def by_id(sessions: list[Session]) -> tuple[Session, ...]:
    kept = {one.session_id: one for one in sessions}
    return tuple(sorted(kept.values(), key=lambda one: one.heartbeat_at, reverse=True))


@st.composite
def cases(draw: st.DrawFn, wakes: st.SearchStrategy[Wake | None] = ANY_WAKE) -> Case:
    cursor = draw(st.integers(0, 9))
    unread = draw(st.integers(0, 3))
    since = sorted([draw(INSTANTS), draw(INSTANTS)])
    return case(
        thread_status=draw(st.sampled_from(ThreadStatus)),
        takes_part=draw(st.booleans()),
        cursor=cursor,
        last_seq=cursor + unread,
        unread=unread,
        unread_since=since[0] if unread else None,
        unread_last=cursor + unread,
        unread_last_at=since[1] if unread else None,
        sessions=by_id(draw(st.lists(SESSIONS, max_size=4))),
        wake=draw(wakes),
        attempted_at=newest_first(draw(st.lists(INSTANTS, max_size=12))),
        failed_at=newest_first(draw(st.lists(INSTANTS, max_size=6))),
        paused=draw(st.booleans()),
    )


@st.composite
def observations(draw: st.DrawFn, wakes: st.SearchStrategy[Wake | None] = ANY_WAKE) -> Seen:
    one = draw(cases(wakes))
    probed = [each.session_id for each in one.sessions if draw(st.booleans())]
    return Seen(
        case=one,
        holder=ME,
        now=NOW,
        means=draw(st.none() | WAYS.map(Means)),
        probes={each: draw(PROBES) for each in probed},
        turn=draw(st.none() | st.sampled_from(Turned).map(lambda turned: Turn(turned=turned))),
        held=frozenset(draw(st.sets(IDS))),
    )


def is_open(seen: Seen) -> bool:
    return seen.case.wake is not None and seen.case.wake.status in trigger.OPEN


@given(observations())
def test_a_decision_always_names_its_reason(seen: Seen) -> None:
    decision = decide(seen, LIMITS)
    assert decision.findings[-1] is decision.why
    for finding in decision.findings:
        assert finding.evidence
        assert finding.evidence.isprintable()
    table = WITH_TRIGGER if is_open(seen) else WITHOUT_TRIGGER
    assert [one.rule for one in decision.findings] == list(table)[: len(decision.findings)]


@given(observations())
def test_the_same_case_is_decided_alike(seen: Seen) -> None:
    assert decide(seen, LIMITS) == decide(seen, LIMITS)


@given(observations(WITHOUT))
def test_without_a_trigger_one_is_made_or_nothing(seen: Seen) -> None:
    decision = decide(seen, LIMITS)
    assert isinstance(decision.action, act.Rest | act.Queue)
    if isinstance(decision.action, act.Queue):
        assert seen.case.thread_status is ThreadStatus.ACTIVE
        assert seen.case.takes_part
        assert seen.case.unread
        assert seen.means is not None
        assert not seen.case.paused


@given(observations())
def test_nothing_is_begun_for_a_thread_that_is_not_active_or_an_agent_that_is_paused(seen: Seen) -> None:
    left_alone = seen.case.thread_status is not ThreadStatus.ACTIVE or seen.case.paused or not seen.case.takes_part
    assert not (left_alone and isinstance(decide(seen, LIMITS).action, BEGINS | act.Queue | act.Defer))


@given(observations(OPEN_WAKES))
def test_only_whoever_holds_the_claim_does_anything(seen: Seen) -> None:
    held = seen.case.wake
    assert held is not None
    ours = held.status is Status.CLAIMED and held.holder == ME and held.lease_until is not None and held.lease_until > NOW
    assert ours or isinstance(decide(seen, LIMITS).action, act.Rest | act.Claim)


@given(observations(OPEN_WAKES))
def test_only_a_live_managed_fresh_terminal_of_this_host_is_written_to(seen: Seen) -> None:
    action = decide(seen, LIMITS).action
    if isinstance(action, act.Deliver | act.Press | act.Defer):
        assert action.session.management_mode is ManagementMode.MANAGED
        assert action.session.status is not SessionStatus.OFFLINE
        assert NOW - action.session.heartbeat_at <= LIMITS.fresh_within
        assert seen.probes[action.session.session_id].liveness is Liveness.LIVE


@given(observations(OPEN_WAKES))
def test_nothing_goes_into_a_terminal_in_which_a_person_types_unless_it_is_forced(seen: Seen) -> None:
    action = decide(seen, LIMITS).action
    if isinstance(action, act.Deliver | act.Press):
        typed = seen.probes[action.session.session_id].typed_at
        assert typed is None or NOW - typed >= LIMITS.typing_within or (seen.case.wake is not None and seen.case.wake.forced)


@given(observations(OPEN_WAKES))
def test_no_turn_is_a_second_writer(seen: Seen) -> None:
    action = decide(seen, LIMITS).action
    if isinstance(action, act.Resume):
        session_id = action.session.session_id
        assert session_id not in seen.held
        assert action.session.resumable
        probe = seen.probes.get(session_id)
        if action.session.management_mode is ManagementMode.MANAGED:
            assert probe is None or probe.liveness not in (Liveness.LIVE, Liveness.UNKNOWN)
            fresh = (
                action.session.status is not SessionStatus.OFFLINE
                and NOW - action.session.heartbeat_at <= LIMITS.fresh_within
            )
            assert probe is not None or not fresh


@given(observations(OPEN_WAKES))
def test_an_attempt_in_flight_is_never_joined_by_another(seen: Seen) -> None:
    assert seen.case.wake is not None
    if trigger.in_flight(seen.case.wake):
        assert not isinstance(decide(seen, LIMITS).action, BEGINS | act.Defer | act.Release)


@given(observations(OPEN_WAKES))
def test_a_deferral_never_goes_beyond_a_minute_from_the_first(seen: Seen) -> None:
    action = decide(seen, LIMITS).action
    if isinstance(action, act.Defer):
        assert seen.case.wake is not None
        first, renewed = seen.case.wake.deferred_at, seen.case.wake.renewed_at
        began = NOW if first is None or (renewed is not None and first < renewed) else first
        assert action.due_at <= NOW + LIMITS.defer_every
        if action.code is Code.DEFER_TIMEOUT:
            assert began + LIMITS.defer_at_most <= NOW == action.due_at
        else:
            assert NOW < action.due_at <= began + LIMITS.defer_at_most


@given(observations(OPEN_WAKES))
def test_a_dead_letter_is_never_silent(seen: Seen) -> None:
    action = decide(seen, LIMITS).action
    if isinstance(action, act.Settle):
        assert (action.status is Status.DEAD_LETTERED) == bool(action.bounce) == (action.outcome is Outcome.DEAD_LETTERED)
        assert action.status is Status.DONE or action.code is not None


# Courses


def chance(data: st.DataObject) -> World:
    """A world in which a terminal may be anything at any look, somebody may type, and turns fail in any way."""

    def probe(now: datetime) -> Probe:
        typed = data.draw(st.sampled_from([None, now, now - 19 * SECOND, now - 21 * SECOND]))
        return Probe(liveness=data.draw(st.sampled_from(Liveness)), typed_at=typed)

    turn = data.draw(st.sampled_from([Turned.FAILED, Turned.LOST, Turned.UNSTARTED, Turned.UNKNOWN]))
    return World(probe=probe, turn=turn, beats=data.draw(st.booleans()))


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    """Counts and waits that somebody may set; the others by default."""
    return LIMITS._replace(
        attempts_per_minute=draw(st.integers(1, 10)),
        retries=draw(st.integers(0, 4)),
        resumes=draw(st.integers(0, 4)),
        spawns=draw(st.integers(1, 5)),
        failures=draw(st.integers(1, 4)),
        unheeded=draw(st.integers(1, 6)),
        defer_at_most=draw(st.sampled_from([0, 5, 60])) * SECOND,
        cooldown=draw(st.sampled_from([0, 5])) * SECOND,
    )


@given(st.data(), cases(OPEN_WAKES), limits(), st.none() | WAYS.map(Means))
def test_from_every_case_failures_end_in_a_dead_letter_and_never_in_silence(
    data: st.DataObject, one: Case, within: Limits, means: Means | None
) -> None:
    asleep = tuple(replace(each, status=SessionStatus.IDLE) for each in one.sessions)
    held = replace(one, sessions=asleep, thread_status=ThreadStatus.ACTIVE, takes_part=True, paused=False)
    if not held.unread:
        held = replace(held, unread=1, unread_since=NOW, unread_last_at=NOW, last_seq=held.cursor + 1)
    assert held.wake is not None
    unheard = tuple(replace(each, cursor=held.cursor) for each in held.wake.attempts)
    course = Course(replace(held, wake=replace(held.wake, attempts=unheard)), chance(data), within, means)
    settled = course.until_settled().action
    assert isinstance(settled, act.Settle)
    assert settled.status is Status.DEAD_LETTERED
    assert settled.bounce


@given(st.data(), st.lists(SESSIONS, max_size=4), limits())
def test_within_any_minute_there_are_no_more_attempts_than_allowed(
    data: st.DataObject, sessions: list[Session], within: Limits
) -> None:
    course = Course(case(sessions=by_id(sessions)), chance(data), within)
    began: list[datetime] = []
    for number in range(60):
        if isinstance(course.step().action, BEGINS):
            began.append(course.now)
        if number % 7 == 0:  # somebody posts, which makes another trigger after the last one
            course.case = replace(course.case, unread_last_at=course.now, unread_since=course.now)
    most = within.attempts_per_minute
    for first, last in zip(began, began[most:], strict=False):
        assert last - first >= MINUTE
    assert all(one <= two for one, two in pairwise(began))


@given(st.data(), st.lists(SESSIONS, max_size=4))
def test_no_terminal_gets_the_prompt_of_one_trigger_twice(data: st.DataObject, sessions: list[Session]) -> None:
    course = Course(case(sessions=by_id(sessions), wake=wake(lease_until=NOW + 1000 * HOUR)), chance(data))
    course.until_settled()
    told = [one.action.session.session_id for one in course.decisions if isinstance(one.action, act.Deliver)]
    assert len(told) == len(set(told))


@given(st.data(), st.lists(SESSIONS, max_size=4))
def test_a_person_keeps_a_trigger_waiting_for_a_minute_at_most(data: st.DataObject, sessions: list[Session]) -> None:
    course = Course(case(sessions=by_id(sessions), wake=wake(lease_until=NOW + 1000 * HOUR)), chance(data))
    course.until_settled()
    deferrals = [one.action for one in course.decisions if isinstance(one.action, act.Defer)]
    deferred = [one.due_at for one in deferrals if one.code is Code.OPERATOR_BUSY]
    assert not deferred or deferred[-1] - deferred[0] <= timedelta(minutes=1)
    assert sum(one.collided for one in course.decisions) <= 1
