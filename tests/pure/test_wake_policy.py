"""The rules of waking, each by itself: every line of the policy has its test here."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestration.bridge import configured
from orchestration.bridge.wake import action as act
from orchestration.bridge.wake import trigger
from orchestration.bridge.wake.action import Reason, Rule
from orchestration.bridge.wake.limits import IN_ITS_TERMINAL, Limits, Means
from orchestration.bridge.wake.observation import Turn, Turned, to_probe, turn_to_find
from orchestration.bridge.wake.port import Liveness, Probe
from orchestration.bridge.wake.state import Case, Code, Outcome, Status, Wake, Way
from orchestration.bridge.wire import ManagementMode, SessionStatus, ThreadStatus
from orchestration.settings import Agent
from orchestration.settings import Wake as WakeSettings
from tests.pure.waking import (
    HOUR,
    LIMITS,
    MINUTE,
    NOW,
    OTHER,
    PANE,
    PAST,
    SECOND,
    Course,
    World,
    ago,
    attempt,
    case,
    chosen,
    ended,
    failed,
    past,
    session,
    wake,
)

QUEUED: dict[str, Any] = {"status": Status.QUEUED, "holder": "", "lease_until": None}
ASKED: dict[str, Any] = {"requested_by": "executioner", "reason": "look", "prompt": "Please look."}
TURNS_ONLY = Means(frozenset({Way.RESUME, Way.SPAWN}))


def typed(seconds: float, session_id: str = PANE) -> dict[str, Probe]:
    return {session_id: Probe(liveness=Liveness.LIVE, typed_at=ago(seconds))}


def found(liveness: Liveness) -> dict[str, Probe]:
    return {PANE: Probe(liveness=liveness)}


def active(**changes: Any) -> Any:
    """An unmanaged session in which the agent is at work."""
    return past(**{"status": SessionStatus.ACTIVE, "heartbeat_at": ago(5), **changes})


# The settings


def test_the_limits_defaults_are_those_of_the_settings() -> None:
    assert configured.wake_limits(WakeSettings()) == Limits()


@pytest.mark.parametrize(
    ("profile", "ways"),
    [
        (Agent(), set(Way)),
        (Agent(runtime="claude"), set(Way)),
        (Agent(runtime="tmux"), {Way.LIVE}),
        (Agent(runtime="command", spawn=("a", "{prompt}")), {Way.LIVE, Way.SPAWN}),
        (Agent(runtime="command", spawn=("a",), resume=("a", "{session}")), set(Way)),
    ],
)
def test_a_profile_says_what_the_host_can_do(profile: Agent, ways: set[Way]) -> None:
    assert configured.means(profile).ways == ways


def test_a_profile_says_how_long_a_turn_may_take() -> None:
    assert configured.means(Agent(timeout=timedelta(minutes=7))).turn_timeout == 7 * MINUTE


# Unread for a dormant participant: a trigger, coalesced, cooled down


def test_unread_messages_for_a_dormant_participant_become_a_trigger() -> None:
    decision = chosen(case(unread=2))
    assert decision.action == act.Queue(reason="2 messages unread since 2026-11-21 11:59:49Z")
    assert decision.why.reason is Reason.UNREAD_MESSAGES


def test_nothing_unread_wakes_nobody() -> None:
    decision = chosen(case(unread=0, cursor=4))
    assert (decision.action, decision.why.reason) == (act.Rest(), Reason.NOTHING_UNREAD)


def test_an_open_trigger_takes_in_what_is_posted_meanwhile() -> None:
    for status in (QUEUED, {}):
        assert not isinstance(chosen(case(unread=7, wake=wake(**status))).action, act.Queue)


def test_after_a_trigger_has_ended_the_next_one_cools_down() -> None:
    last = ended(ended_at=ago(3))
    decision = chosen(case(wake=last, unread_last_at=ago(1)))
    assert (decision.action, decision.why.reason) == (act.Rest(until=NOW + 2 * SECOND), Reason.COOLING_DOWN)
    again = chosen(case(wake=replace(last, ended_at=ago(5)), unread_last_at=ago(1)))
    assert isinstance(again.action, act.Queue)


def test_the_same_messages_wake_again_ever_more_slowly() -> None:
    told = {"wake": ended(ended_at=ago(60.5)), "unread_since": ago(100), "unread_last_at": ago(100)}
    assert isinstance(chosen(case(**told, attempted_at=(ago(70),))).action, act.Queue)
    decision = chosen(case(**told, attempted_at=(ago(70), ago(80))))
    assert decision.why.reason is Reason.TOLD_ALREADY
    assert decision.action == act.Rest(until=ago(60.5) + 5 * MINUTE)


def test_a_newer_message_wakes_at_once_however_often_older_ones_did() -> None:
    news = case(wake=ended(), unread_since=ago(100), unread_last_at=ago(3), attempted_at=(ago(70), ago(80), ago(90)))
    assert isinstance(chosen(news).action, act.Queue)


def test_an_agent_that_never_reads_is_given_up() -> None:
    many = tuple(ago(60 * number) for number in range(1, 6))
    made = case(wake=wake(), attempted_at=many, unread_since=ago(1000))
    decision = chosen(made)
    assert decision.why.rule is Rule.UNHEEDED
    assert isinstance(decision.action, act.Settle)
    assert (decision.action.status, decision.action.code) == (Status.DEAD_LETTERED, Code.WAKE_FAILED)
    assert "5 attempts" in decision.action.bounce
    assert chosen(replace(made, wake=wake(renewed_at=ago(1)))).why.rule is not Rule.UNHEEDED
    assert chosen(replace(made, wake=wake(**ASKED))).why.rule is not Rule.UNHEEDED
    assert chosen(replace(made, attempted_at=many[:4])).why.rule is not Rule.UNHEEDED


@pytest.mark.parametrize("status", [Status.DEAD_LETTERED, Status.CANCELLED])
def test_what_was_given_up_is_left_alone_until_something_is_posted(status: Status) -> None:
    last = ended(status=status, outcome=Outcome.DEAD_LETTERED, code=Code.WAKE_FAILED)
    decision = chosen(case(wake=last, unread_last_at=ago(100)))
    assert (decision.action, decision.why.reason) == (act.Rest(), Reason.GIVEN_UP)
    assert isinstance(chosen(case(wake=last, unread_last_at=ago(3))).action, act.Queue)


def test_a_dead_letter_is_taken_up_when_a_terminal_comes_that_it_had_not_tried() -> None:
    last = ended(status=Status.DEAD_LETTERED, outcome=Outcome.DEAD_LETTERED, code=Code.RUNTIME_OFFLINE)
    slept = case(wake=last, unread_last_at=ago(100), sessions=(session(),))
    assert to_probe(slept, LIMITS, NOW) == (session(),)
    assert isinstance(chosen(slept).action, act.Queue)
    assert chosen(slept, probes=found(Liveness.DEAD)).why.reason is Reason.GIVEN_UP
    tried = replace(slept, wake=replace(last, attempts=(failed(1),)))
    assert to_probe(tried, LIMITS, NOW) == ()
    assert chosen(tried).why.reason is Reason.GIVEN_UP


def test_a_terminal_that_was_there_all_along_is_no_reason_to_try_again() -> None:
    elsewhere = failed(1, session_id="another")
    last = ended(status=Status.DEAD_LETTERED, outcome=Outcome.DEAD_LETTERED, code=Code.WAKE_FAILED, attempts=(elsewhere,))
    slept = case(wake=last, unread_last_at=ago(900), sessions=(session(),))
    for since, found_now in ((last.ended_at, act.Rest), (NOW, act.Queue)):
        there = {PANE: Probe(liveness=Liveness.LIVE, since=since)}
        assert isinstance(chosen(slept, probes=there).action, found_now)


def test_what_was_given_up_does_not_count_against_the_trigger_that_follows_it() -> None:
    many = tuple(ago(60 * number) for number in range(1, 6))
    last = ended(
        status=Status.DEAD_LETTERED,
        outcome=Outcome.DEAD_LETTERED,
        code=Code.WAKE_FAILED,
        attempts=(failed(1, session_id="old"),),
    )
    there = {PANE: Probe(liveness=Liveness.LIVE, since=NOW)}
    for why in ({"unread_last_at": ago(3)}, {"unread_last_at": ago(900), "sessions": (session(),)}):
        given_up = case(wake=last, attempted_at=many, unread_since=ago(1000), **why)
        action = chosen(given_up, probes=there).action
        assert isinstance(action, act.Queue)
        assert action.anew
        next_one = wake(created_at=NOW, renewed_at=NOW)
        assert chosen(replace(given_up, wake=next_one)).why.rule in (Rule.TERMINAL, Rule.SPAWN)
    action = chosen(case(wake=ended(), unread_last_at=ago(3))).action
    assert isinstance(action, act.Queue)
    assert not action.anew


@pytest.mark.parametrize("code", [Code.THREAD_AUTO_BLOCKED, Code.TARGET_NOT_FOUND])
def test_a_thread_that_is_active_again_wakes_for_what_stayed_unread(code: Code) -> None:
    last = ended(status=Status.CANCELLED, outcome=Outcome.FAILED, code=code)
    assert isinstance(chosen(case(wake=last, unread_last_at=ago(100))).action, act.Queue)


# At most ten attempts a minute


def test_the_eleventh_attempt_within_a_minute_waits() -> None:
    nine = tuple(ago(5 * number) for number in range(1, 10))
    assert isinstance(chosen(case(wake=wake(), attempted_at=nine)).action, act.Spawn)
    ten = (*nine, ago(59))
    decision = chosen(case(wake=wake(**ASKED), attempted_at=ten))
    assert decision.why.reason is Reason.RATE_LIMITED
    assert decision.action == act.Release(due_at=NOW + SECOND, code=Code.TRIGGER_RATE_LIMITED)
    assert isinstance(chosen(case(wake=wake(), attempted_at=(*nine, ago(60)))).action, act.Spawn)


# Managed, live, fresh: delivered; acknowledged within 8 s; two retries


def test_a_live_terminal_gets_the_prompt() -> None:
    decision = chosen(case(wake=wake(), sessions=(session(), past())))
    assert decision.action == act.Deliver(session=session(), number=1)
    assert decision.why.reason is Reason.LIVE_TERMINAL


@pytest.mark.parametrize(
    ("changes", "probes", "code"),
    [
        ({"management_mode": ManagementMode.UNMANAGED}, None, Code.RUNTIME_UNMANAGED),
        ({"heartbeat_at": ago(91)}, None, Code.RUNTIME_OFFLINE),
        ({"status": SessionStatus.OFFLINE}, None, Code.RUNTIME_OFFLINE),
        ({}, Liveness.DEAD, Code.PANE_DEAD),
        ({}, Liveness.FOREIGN, Code.RUNTIME_SESSION_MISMATCH),
        ({}, Liveness.ABSENT, Code.RUNTIME_OFFLINE),
        ({}, Liveness.UNKNOWN, Code.RUNTIME_OFFLINE),
    ],
)
def test_a_session_that_is_not_managed_live_and_fresh_is_not_written_to(
    changes: dict[str, Any], probes: Liveness | None, code: Code
) -> None:
    looked = found(probes or Liveness.LIVE)
    decision = chosen(case(wake=wake(), sessions=(session(**changes), past())), probes=looked)
    assert decision.action == act.Resume(session=past(), number=1, code=code)


def test_an_agent_without_any_session_is_spawned() -> None:
    assert chosen(case(wake=wake())).action == act.Spawn(number=1, code=Code.RUNTIME_NOT_FOUND)


def test_an_acknowledgement_is_awaited_for_eight_seconds() -> None:
    told = case(wake=wake(attempts=(attempt(),)), sessions=(session(),))
    assert chosen(told).action == act.AwaitAck(attempt=attempt(), until=NOW + 4 * SECOND)
    late = attempt(began_at=ago(8))
    decision = chosen(case(wake=wake(attempts=(late,)), sessions=(session(),)))
    assert isinstance(decision.action, act.Finish)
    assert (decision.action.attempt.outcome, decision.action.attempt.code) == (Outcome.FAILED, Code.WAKE_FAILED)
    assert decision.action.attempt.ended_at == NOW


@pytest.mark.parametrize(
    "by",
    [
        {"cursor": 4, "unread": 0},
        {"sessions": (session(status=SessionStatus.ACTIVE, heartbeat_at=ago(2)),)},
        {"sessions": (session(), active(heartbeat_at=ago(1)))},
    ],
)
def test_a_read_or_a_beat_that_says_active_acknowledges(by: dict[str, Any]) -> None:
    decision = chosen(case(**{"wake": wake(attempts=(attempt(),)), "sessions": (session(),), **by}))
    assert isinstance(decision.action, act.Settle)
    assert (decision.action.status, decision.action.outcome) == (Status.DONE, Outcome.TRIGGERED)
    assert decision.action.attempt is not None
    assert (decision.action.attempt.outcome, decision.action.attempt.ended_at) == (Outcome.TRIGGERED, NOW)


@pytest.mark.parametrize(
    "not_by",
    [session(heartbeat_at=ago(1)), session(status=SessionStatus.ACTIVE, heartbeat_at=ago(4))],
    ids=["the watcher's idle beat", "a beat from before"],
)
def test_keys_that_were_sent_are_no_delivery(not_by: Any) -> None:
    decision = chosen(case(wake=wake(attempts=(attempt(),)), sessions=(not_by,)))
    assert isinstance(decision.action, act.AwaitAck)


def test_a_retry_presses_and_never_puts_the_prompt_in_again() -> None:
    for tries in (1, 2):
        rows = tuple(failed(number) for number in range(1, tries + 1))
        decision = chosen(case(wake=wake(attempts=rows), sessions=(session(), past())))
        assert decision.action == act.Press(session=session(), number=tries + 1)
    three = tuple(failed(number) for number in (1, 2, 3))
    decision = chosen(case(wake=wake(attempts=three), sessions=(session(), past())))
    assert decision.action == act.Resume(session=past(), number=4, code=Code.WAKE_FAILED)


def test_a_terminal_that_took_nothing_in_is_left_for_another_one() -> None:
    second = session("tmux:1:%4")
    rows = (failed(1, code=Code.PANE_DEAD),)
    decision = chosen(case(wake=wake(attempts=rows), sessions=(session(), second)))
    assert decision.action == act.Deliver(session=second, number=2)
    alone = chosen(case(wake=wake(attempts=rows), sessions=(session(), past())))
    assert alone.action == act.Resume(session=past(), number=2, code=Code.PANE_DEAD)


def test_keys_that_may_have_gone_in_are_not_sent_again() -> None:
    rows = (failed(1, code=Code.SEND_KEYS_ERROR),)
    assert isinstance(chosen(case(wake=wake(attempts=rows), sessions=(session(),))).action, act.Press)


def test_a_retry_by_an_operator_may_put_it_in_again() -> None:
    rows = tuple(failed(number) for number in (1, 2, 3))
    decision = chosen(case(wake=wake(attempts=rows, renewed_at=ago(1)), sessions=(session(),)))
    assert decision.action == act.Deliver(session=session(), number=4)


def test_who_reads_after_the_retries_were_awaited_has_been_triggered() -> None:
    decision = chosen(case(wake=wake(attempts=(failed(1),)), cursor=4, unread=0))
    assert isinstance(decision.action, act.Settle)
    assert (decision.action.outcome, decision.why.reason) == (Outcome.TRIGGERED, Reason.ACKNOWLEDGED)


# A person types


def test_a_person_who_typed_within_20_s_is_waited_for_in_steps_of_5_s() -> None:
    asleep = case(wake=wake(), sessions=(session(),))
    decision = chosen(asleep, probes=typed(19.9))
    assert decision.action == act.Defer(due_at=NOW + 5 * SECOND, session=session())
    assert decision.action.code is Code.OPERATOR_BUSY
    assert isinstance(chosen(asleep, probes=typed(20)).action, act.Deliver)


def test_deferrals_end_60_s_after_the_first_with_a_collision() -> None:
    first = {"deferred_at": ago(57), "deferrals": 11}
    decision = chosen(case(wake=wake(**first), sessions=(session(), past())), probes=typed(1))
    assert decision.action == act.Defer(due_at=NOW + 3 * SECOND, session=session())
    last = {"deferred_at": ago(60), "deferrals": 12}
    decision = chosen(case(wake=wake(**last), sessions=(session(), past())), probes=typed(1))
    assert decision.action == act.Defer(due_at=NOW, session=session(), code=Code.DEFER_TIMEOUT)
    assert decision.collided


def test_after_the_collision_another_way_is_taken() -> None:
    collision = attempt(1, outcome=Outcome.DEFERRED, code=Code.DEFER_TIMEOUT, ended_at=ago(4))
    left_to_them = wake(deferred_at=ago(64), attempts=(collision,))
    one = case(wake=left_to_them, sessions=(session(), past()))
    decision = chosen(one, probes=typed(1))
    assert decision.action == act.Resume(session=past(), number=2, code=Code.DEFER_TIMEOUT)
    assert not decision.collided
    assert isinstance(chosen(one, probes=typed(25)).action, act.Deliver)  # nobody types any more
    renewed = replace(one, wake=replace(left_to_them, renewed_at=ago(1)))
    assert chosen(renewed, probes=typed(1)).action == act.Defer(due_at=NOW + 5 * SECOND, session=session())


def test_a_retry_too_waits_for_who_types() -> None:
    decision = chosen(case(wake=wake(attempts=(failed(1),)), sessions=(session(),)), probes=typed(1))
    assert isinstance(decision.action, act.Defer)


def test_only_what_an_operator_has_forced_goes_in_beside_a_person() -> None:
    forced = case(wake=wake(forced=True), sessions=(session(),))
    assert isinstance(chosen(forced, probes=typed(1)).action, act.Deliver)


def test_a_deferral_uses_up_no_attempt() -> None:
    course = Course(case(sessions=(session(),)), World(probe=lambda now: Probe(liveness=Liveness.LIVE, typed_at=now)))
    settled = course.until_settled()
    deferred = [one.action for one in course.decisions if isinstance(one.action, act.Defer)]
    assert [one.code for one in deferred] == [Code.OPERATOR_BUSY] * 12 + [Code.DEFER_TIMEOUT]
    assert [one.collided for one in course.decisions].count(True) == 1
    first = next(one.action for one in course.decisions if isinstance(one.action, act.Spawn))
    assert first == act.Spawn(number=14, code=Code.DEFER_TIMEOUT)
    assert [one.way for one in trigger.counted(left(course.case))] == [Way.SPAWN] * 3
    assert isinstance(settled.action, act.Settle)


# Unmanaged or offline: resumed twice, then spawned


def test_the_latest_session_that_can_be_resumed_is_resumed() -> None:
    older, deaf = past("older", heartbeat_at=ago(7200)), past("deaf", resumable=False, heartbeat_at=ago(100))
    decision = chosen(case(wake=wake(), sessions=(deaf, past(), older)))
    assert decision.action == act.Resume(session=past(), number=1, code=Code.RUNTIME_UNMANAGED)


def test_two_resumed_turns_may_fail_before_a_new_session_is_spawned() -> None:
    one = wake(attempts=(failed(1, Way.RESUME),))
    assert isinstance(chosen(case(wake=one, sessions=(past(),))).action, act.Resume)
    two = wake(attempts=(failed(1, Way.RESUME), failed(2, Way.RESUME)))
    assert isinstance(chosen(case(wake=two, sessions=(past(),))).action, act.Spawn)


def test_a_session_that_its_runtime_does_not_know_is_not_asked_for_twice() -> None:
    gone = wake(attempts=(failed(1, Way.RESUME, code=Code.RUNTIME_NOT_FOUND),))
    assert isinstance(chosen(case(wake=gone, sessions=(past(),))).action, act.Spawn)


@pytest.mark.parametrize(("silent", "resumed"), [(12 * HOUR, True), (12 * HOUR + SECOND, False)])
def test_a_session_silent_for_more_than_12_h_is_not_resumed(silent: timedelta, resumed: bool) -> None:
    decision = chosen(case(wake=wake(), sessions=(past(heartbeat_at=NOW - silent),)))
    assert isinstance(decision.action, act.Resume) is resumed
    assert isinstance(decision.action, act.Spawn) is not resumed


def test_three_failures_within_15_min_spawn_at_once() -> None:
    three = (ago(1), ago(400), ago(899))
    decision = chosen(case(wake=wake(), sessions=(past(),), failed_at=three))
    assert isinstance(decision.action, act.Spawn)
    assert any(one.reason is Reason.CRASH_LOOP for one in decision.findings)
    old = (ago(1), ago(400), ago(900))
    assert isinstance(chosen(case(wake=wake(), sessions=(past(),), failed_at=old)).action, act.Resume)


def test_a_crash_loop_is_braked_and_ends_in_a_dead_letter() -> None:
    four = (ago(20), ago(100), ago(200), ago(300))
    decision = chosen(case(wake=wake(), failed_at=four))
    assert decision.action == act.Release(due_at=ago(20) + MINUTE, code=Code.WAKE_FAILED)
    five = (ago(20), *four)
    assert chosen(case(wake=wake(), failed_at=five)).action == act.Release(
        due_at=ago(20) + 5 * MINUTE, code=Code.WAKE_FAILED
    )
    spawned = tuple(failed(number, Way.SPAWN, code=Code.WAKE_FAILED) for number in (1, 2, 3))
    decision = chosen(case(wake=wake(attempts=spawned), failed_at=five))
    assert isinstance(decision.action, act.Settle)
    assert (decision.action.status, decision.action.code) == (Status.DEAD_LETTERED, Code.WAKE_FAILED)
    assert f"klorosctl triggers retry {wake().trigger_id}" in decision.action.bounce


def test_a_session_that_another_turn_writes_is_waited_for() -> None:
    decision = chosen(case(wake=wake(), sessions=(past(),)), held=frozenset({PAST}))
    assert (decision.action, decision.why.reason) == (act.Release(due_at=NOW + 5 * SECOND), Reason.SESSION_HELD)


@pytest.mark.parametrize("liveness", [Liveness.LIVE, Liveness.UNKNOWN])
def test_a_session_that_lives_in_a_terminal_is_never_resumed(liveness: Liveness) -> None:
    silent = tuple(failed(number) for number in (1, 2, 3))
    one = case(wake=wake(attempts=silent), sessions=(session(resumable=True),))
    assert isinstance(chosen(one, probes=found(liveness)).action, act.Spawn)
    assert isinstance(chosen(one, probes=found(Liveness.DEAD)).action, act.Resume)


def test_an_agent_of_the_terminal_alone_becomes_a_dead_letter_while_it_is_away() -> None:
    decision = chosen(case(wake=wake(), sessions=(session(heartbeat_at=ago(1000)),)), means=IN_ITS_TERMINAL)
    assert isinstance(decision.action, act.Settle)
    assert (decision.action.status, decision.action.code) == (Status.DEAD_LETTERED, Code.RUNTIME_OFFLINE)
    assert decision.action.detail == "no way is left after 0 attempts (RUNTIME_OFFLINE): no terminal of it beat within 90 s"


# Threads that are not active, agents that are awake, paused, unknown here


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (ThreadStatus.BLOCKED, Code.THREAD_AUTO_BLOCKED),
        (ThreadStatus.RESOLVED, Code.TARGET_NOT_FOUND),
        (ThreadStatus.CLOSED, Code.TARGET_NOT_FOUND),
    ],
)
def test_a_thread_that_is_not_active_triggers_nobody(status: ThreadStatus, code: Code) -> None:
    assert chosen(case(thread_status=status)).action == act.Rest()
    due_later = wake(due_at=NOW + HOUR)
    decision = chosen(case(thread_status=status, status_reason="loop_guard: 20 turns", wake=due_later))
    assert isinstance(decision.action, act.Settle)
    assert (decision.action.status, decision.action.outcome) == (Status.CANCELLED, Outcome.FAILED)
    assert (decision.action.code, decision.action.bounce) == (code, "")


def test_who_has_left_the_thread_is_not_woken_for_it() -> None:
    assert chosen(case(takes_part=False)).action == act.Rest()
    decision = chosen(case(takes_part=False, wake=wake()))
    assert isinstance(decision.action, act.Settle)
    assert decision.action.code is Code.TARGET_NOT_FOUND


def test_an_agent_that_is_at_work_by_itself_is_left_to_it() -> None:
    decision = chosen(case(sessions=(active(),)))
    assert (decision.action, decision.why.reason) == (act.Rest(until=NOW + 85 * SECOND), Reason.ALREADY_ACTIVE)
    decision = chosen(case(sessions=(active(),), wake=wake(**ASKED)))
    assert isinstance(decision.action, act.Settle)
    assert (decision.action.status, decision.action.outcome) == (Status.DONE, Outcome.ALREADY_ACTIVE)


def test_words_for_an_agent_at_work_become_a_message_and_unread_messages_are_ones_already() -> None:
    asked = wake(**{**ASKED, "reason": "look\nagain", "prompt": "a \x1b[2Jfinding"})
    decision = chosen(case(sessions=(active(),), wake=asked))
    assert isinstance(decision.action, act.Settle)
    asker, *told = decision.action.words.split("\n")
    assert (asked.trigger_id in asker, ASKED["requested_by"] in asker) == (True, True)
    assert told == [
        "Why, in the words of whoever asked:",
        "> look",
        "> again",
        "What you were to be told:",
        "> a [2Jfinding",
    ]
    decision = chosen(case(sessions=(active(),), wake=wake()))
    assert isinstance(decision.action, act.Settle)
    assert decision.action.words == ""


@pytest.mark.parametrize("dormant", [active(heartbeat_at=ago(91)), active(status=SessionStatus.IDLE)])
def test_an_unmanaged_session_that_is_silent_or_idle_is_resumed(dormant: Any) -> None:
    assert isinstance(chosen(case(sessions=(dormant,))).action, act.Queue)
    assert isinstance(chosen(case(sessions=(dormant,), wake=wake())).action, act.Resume)


def test_a_beat_from_before_the_end_of_our_own_turn_shows_nobody_at_work() -> None:
    turn = failed(1, Way.RESUME, ended_at=ago(2))
    assert isinstance(chosen(case(wake=wake(attempts=(turn,)), sessions=(active(),))).action, act.Resume)
    assert isinstance(chosen(case(wake=wake(attempts=(turn,)), sessions=(active(heartbeat_at=ago(1)),))).action, act.Settle)
    done = ended(ended_at=ago(6), attempts=(replace(turn, outcome=Outcome.FALLBACK_RESUMED),))
    assert isinstance(chosen(case(wake=done, sessions=(active(),), unread_last_at=ago(1))).action, act.Queue)


def test_a_terminal_is_told_even_if_another_session_is_at_work() -> None:
    both = (session(), active())
    assert isinstance(chosen(case(sessions=both)).action, act.Queue)
    assert isinstance(chosen(case(sessions=both, wake=wake())).action, act.Deliver)


def test_an_agent_found_at_work_is_not_triggered_again_while_it_is() -> None:
    last = ended(outcome=Outcome.ALREADY_ACTIVE)
    both = case(wake=last, sessions=(session(), active()), unread_last_at=ago(100))
    assert chosen(both).why.reason is Reason.ALREADY_ACTIVE
    assert isinstance(chosen(replace(both, sessions=(session(),))).action, act.Queue)


def test_who_has_read_meanwhile_needs_no_waking() -> None:
    decision = chosen(case(unread=0, cursor=4, wake=wake(**QUEUED)))
    assert decision.action == act.Claim()
    decision = chosen(case(unread=0, cursor=4, wake=wake()))
    assert isinstance(decision.action, act.Settle)
    assert (decision.action.status, decision.action.outcome) == (Status.DONE, Outcome.ALREADY_ACTIVE)


def test_who_was_asked_for_is_woken_though_nothing_is_unread() -> None:
    assert isinstance(chosen(case(unread=0, cursor=4, wake=wake(**ASKED))).action, act.Spawn)


def test_what_a_broken_off_turn_has_read_counts_as_unread() -> None:
    broken = wake(attempts=(failed(1, Way.RESUME),))
    assert isinstance(chosen(case(wake=broken, cursor=4, unread=0, sessions=(past(),))).action, act.Resume)


def test_a_paused_agent_is_left_alone_and_keeps_its_trigger() -> None:
    assert chosen(case(paused=True)).why.reason is Reason.PAUSED
    assert chosen(case(paused=True, wake=wake(**QUEUED))).action == act.Rest()
    assert chosen(case(paused=True, wake=wake())).action == act.Release(due_at=NOW + 5 * SECOND)


def test_a_paused_agents_attempt_in_flight_is_seen_to_its_end() -> None:
    decision = chosen(case(paused=True, wake=wake(attempts=(attempt(1, Way.SPAWN),))), turn=Turn(turned=Turned.SUCCEEDED))
    assert isinstance(decision.action, act.Settle)


def test_an_agent_without_a_profile_is_left_to_other_hosts() -> None:
    assert chosen(case(), means=None).why.reason is Reason.NO_PROFILE
    decision = chosen(case(wake=wake(**QUEUED)), means=None)
    assert (decision.action, decision.why.reason) == (act.Rest(until=ago(10) + 15 * MINUTE), Reason.NO_PROFILE)
    assert chosen(case(wake=wake()), means=None).action == act.Release(due_at=NOW + 5 * SECOND)


def test_a_trigger_that_no_host_takes_up_becomes_a_dead_letter() -> None:
    old = {"created_at": ago(960), "due_at": ago(960), **ASKED}
    waits = wake(**{**QUEUED, **old, "due_at": ago(899)})
    assert chosen(case(wake=waits), means=None).action == act.Rest(until=NOW + SECOND)
    assert chosen(case(wake=wake(**QUEUED, **old)), means=None).action == act.Claim()
    decision = chosen(case(wake=wake(**old)), means=None)
    assert isinstance(decision.action, act.Settle)
    assert (decision.action.status, decision.action.code) == (Status.DEAD_LETTERED, Code.RUNTIME_NOT_FOUND)
    theirs = wake(**old, holder=OTHER, lease_until=ago(899))
    assert chosen(case(wake=theirs), means=None).why.reason is Reason.NO_PROFILE


def test_a_terminal_of_another_host_is_left_to_it_for_a_while() -> None:
    decision = chosen(case(wake=wake(**QUEUED), sessions=(session(resumable=True),)), probes={})
    assert (decision.action, decision.why.reason) == (act.Rest(until=ago(10) + 15 * MINUTE), Reason.LIVES_ELSEWHERE)
    one = case(wake=wake(created_at=ago(1000), due_at=ago(900)), sessions=(session(resumable=True),))
    assert isinstance(chosen(one, probes={}).action, act.Spawn)  # and not resumed, which would be a second writer


# Claims, and what a dead supervisor has left


def test_a_due_trigger_is_claimed_first() -> None:
    assert chosen(case(wake=wake(**QUEUED))).action == act.Claim()


def test_a_trigger_is_not_looked_at_before_it_is_due() -> None:
    decision = chosen(case(wake=wake(**QUEUED, due_at=NOW + SECOND, code=Code.OPERATOR_BUSY)))
    assert (decision.action, decision.why.reason) == (act.Rest(until=NOW + SECOND), Reason.NOT_DUE)


def test_what_another_supervisor_holds_is_its_own_until_its_lease_ends() -> None:
    theirs = wake(holder=OTHER, lease_until=NOW + SECOND)
    decision = chosen(case(wake=theirs))
    assert (decision.action, decision.why.reason) == (act.Rest(until=NOW + SECOND), Reason.CLAIMED_ELSEWHERE)
    assert chosen(case(wake=replace(theirs, lease_until=NOW))).action == act.Claim()


def test_our_own_claim_is_taken_anew_when_it_has_run_out() -> None:
    assert chosen(case(wake=wake(lease_until=NOW))).action == act.Claim()


def test_a_dead_supervisors_prompt_is_acknowledged_or_given_up_and_never_put_in_again() -> None:
    begun = wake(attempts=(attempt(holder=OTHER, began_at=ago(100)),))
    course = Course(case(wake=begun, sessions=(session(), past())))
    course.until_settled()
    made = [type(one.action) for one in course.decisions]
    assert act.Deliver not in made
    assert made[:2] == [act.Finish, act.Press]


@pytest.mark.parametrize("turned", list(Turned))
@pytest.mark.parametrize("way", [Way.RESUME, Way.SPAWN])
def test_a_begun_turn_is_taken_up_as_it_is_found(turned: Turned, way: Way) -> None:
    begun = case(wake=wake(attempts=(attempt(1, way, holder=OTHER),)))
    assert turn_to_find(begun)
    decision = chosen(begun, turn=Turn(turned=turned, session_id=PAST, detail="so"))
    if turned in (Turned.RUNNING, Turned.UNKNOWN):
        assert decision.action == act.AwaitTurn(
            attempt=attempt(1, way, holder=OTHER, session_id=PAST), until=ago(4) + 30 * MINUTE + 30 * SECOND
        )
    elif turned is Turned.SUCCEEDED:
        outcome = Outcome.FALLBACK_RESUMED if way is Way.RESUME else Outcome.FALLBACK_SPAWNED
        assert isinstance(decision.action, act.Settle)
        assert (decision.action.status, decision.action.outcome) == (Status.DONE, outcome)
        assert decision.action.attempt is not None
        assert (decision.action.attempt.outcome, decision.action.attempt.session_id) == (outcome, PAST)
    else:
        assert isinstance(decision.action, act.Finish)
        assert decision.action.attempt.code is Code.WAKE_FAILED
        assert decision.action.attempt.detail.endswith(": so")


@pytest.mark.parametrize("asked", [{}, ASKED], ids=["of unread messages", "asked for in words"])
@pytest.mark.parametrize(
    ("way", "outcome"),
    [
        (Way.LIVE, Outcome.TRIGGERED),
        (Way.RESUME, Outcome.FALLBACK_RESUMED),
        (Way.SPAWN, Outcome.FALLBACK_SPAWNED),
    ],
)
def test_an_attempt_that_woke_is_the_end_of_its_trigger_whatever_came_since(
    way: Way, outcome: Outcome, asked: dict[str, Any]
) -> None:
    """Its supervisor was killed between the two."""
    made = (failed(1), attempt(2, way, ended_at=ago(3), outcome=outcome))
    left = case(unread=3, wake=wake(attempts=made, **QUEUED, **asked), sessions=(session(), past()))
    assert chosen(left).action == act.Claim()
    decision = chosen(replace(left, wake=wake(attempts=made, **asked)))
    assert isinstance(decision.action, act.Settle)
    assert (decision.action.status, decision.action.outcome) == (Status.DONE, outcome)
    assert decision.action.attempt is None
    assert decision.why.rule is Rule.FLIGHT


def test_what_woke_before_an_operator_retried_is_not_the_end() -> None:
    woke = attempt(1, Way.SPAWN, began_at=ago(60), ended_at=ago(30), outcome=Outcome.FALLBACK_SPAWNED)
    decision = chosen(case(unread=1, wake=wake(attempts=(woke,), renewed_at=ago(5))))
    assert not isinstance(decision.action, act.Settle)


def test_a_turn_that_went_on_as_another_session_says_so_and_is_not_made_again() -> None:
    begun = case(wake=wake(attempts=(attempt(1, Way.RESUME),)))
    decision = chosen(begun, turn=Turn(turned=Turned.SUCCEEDED, session_id="another"))
    assert isinstance(decision.action, act.Settle)
    assert decision.action.outcome is Outcome.FALLBACK_RESUMED
    made = decision.action.attempt
    assert made is not None
    assert (made.code, made.session_id) == (Code.RUNTIME_SESSION_MISMATCH, "another")
    assert "went on as session another, and not as" in made.detail


def test_a_failed_turn_of_another_session_has_its_code_and_what_was_asked_for_is_not_resumed_again() -> None:
    begun = case(wake=wake(attempts=(attempt(1, Way.RESUME),)), sessions=(past(),))
    decision = chosen(begun, turn=Turn(turned=Turned.FAILED, session_id="another", detail="so"))
    assert isinstance(decision.action, act.Finish)
    made = decision.action.attempt
    assert (made.code, made.session_id) == (Code.RUNTIME_SESSION_MISMATCH, PAST)
    assert isinstance(chosen(replace(begun, wake=wake(attempts=(made,)))).action, act.Spawn)


def test_a_turn_that_its_host_never_tells_about_is_over_in_the_end() -> None:
    long_ago = attempt(1, Way.SPAWN, holder=OTHER, began_at=NOW - 31 * MINUTE)
    for turn in (None, Turn(turned=Turned.UNKNOWN)):
        assert isinstance(chosen(case(wake=wake(attempts=(long_ago,))), turn=turn).action, act.Finish)
    running = chosen(case(wake=wake(attempts=(long_ago,))), turn=Turn(turned=Turned.RUNNING))
    assert isinstance(running.action, act.AwaitTurn)


def test_a_turn_that_resolved_its_thread_has_succeeded() -> None:
    done = case(wake=wake(attempts=(attempt(1, Way.SPAWN),)), thread_status=ThreadStatus.RESOLVED)
    decision = chosen(done, turn=Turn(turned=Turned.SUCCEEDED))
    assert isinstance(decision.action, act.Settle)
    assert decision.action.status is Status.DONE


def test_terminals_are_looked_at_only_for_an_open_trigger() -> None:
    both = (session(), session("gone", heartbeat_at=ago(91)), past())
    assert to_probe(case(sessions=both), LIMITS, NOW) == ()
    assert to_probe(case(sessions=both, wake=wake(**QUEUED)), LIMITS, NOW) == (session(),)
    assert to_probe(case(sessions=both, wake=ended()), LIMITS, NOW) == ()
    assert not turn_to_find(case(wake=wake(attempts=(attempt(),))))


@pytest.mark.parametrize(
    ("way", "changes"),
    [("nothing but turns", {"means": TURNS_ONLY}), ("a clock set back", {"now": NOW - HOUR})],
)
def test_odd_hosts_do_not_confuse_it(way: str, changes: dict[str, Any]) -> None:
    decision = chosen(case(wake=wake(due_at=NOW - 2 * HOUR), sessions=(past(),)), **changes)
    assert isinstance(decision.action, act.Resume), way


def left(one: Case) -> Wake:
    assert one.wake is not None
    return one.wake


def test_one_course_goes_through_every_way_and_its_waits() -> None:
    course = Course(case(sessions=(session(), past())))
    course.until_settled()
    ways = [one.way.value for one in left(course.case).attempts]
    assert ways == ["live"] * 3 + ["resume"] * 2 + ["spawn"] * 3
    assert course.now - NOW == 3 * 8 * SECOND + MINUTE
    assert left(course.case).status is Status.DEAD_LETTERED


def test_a_terminal_that_acknowledges_ends_the_course_at_once() -> None:
    course = Course(case(sessions=(session(), past())), World(acknowledges=True))
    course.until_settled()
    assert [one.outcome for one in left(course.case).attempts] == [Outcome.TRIGGERED]
