"""`why-not-woken`: one sentence with the evidence, for whatever is decided."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from orchestration.bridge.wake import action as act
from orchestration.bridge.wake.explain import evidence, sentence
from orchestration.bridge.wake.observation import Seen
from orchestration.bridge.wake.policy import decide
from orchestration.bridge.wake.port import Liveness, Probe
from orchestration.bridge.wake.state import Case, Code, Outcome, Status, Way
from orchestration.bridge.wire import SessionStatus, ThreadStatus
from tests.pure.test_wake_properties import observations
from tests.pure.waking import (
    LIMITS,
    NOW,
    OTHER,
    PANE,
    SECOND,
    THREAD,
    TRIGGER,
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


def said(one: Case, **changes: Any) -> str:
    return sentence(one, chosen(one, **changes), agent_id="reviewer", thread_id=THREAD)


def test_a_thread_that_is_not_there_is_said_to_be_none() -> None:
    assert (
        sentence(None, None, agent_id="reviewer", thread_id="thr_1")
        == "reviewer is not woken for thr_1: there is no such thread."
    )


@pytest.mark.parametrize(
    ("one", "changes", "expected"),
    [
        (case(unread=0, cursor=4), {}, f"reviewer is not woken in {THREAD}: nothing is unread after message 4."),
        (
            case(thread_status=ThreadStatus.BLOCKED, status_reason="loop_guard: 20 turns"),
            {},
            f"reviewer is not woken in {THREAD}: the thread is blocked (loop_guard: 20 turns).",
        ),
        (case(paused=True), {}, f"reviewer is not woken in {THREAD}: an operator has paused the agent."),
        (
            case(),
            {"means": None},
            f"reviewer is not woken in {THREAD}: this host has neither a profile for the agent nor a terminal of it.",
        ),
        (
            case(sessions=(past(status=SessionStatus.ACTIVE, heartbeat_at=ago(5)),)),
            {},
            (
                f"reviewer is not woken before 2026-11-21 12:01:25Z in {THREAD}: its unmanaged session "
                "0199a213-81c0-7800-8aa1-bbab2a035a53 is active, with a heartbeat 5 s ago."
            ),
        ),
        (
            case(wake=wake(status=Status.QUEUED, due_at=NOW + 5 * SECOND, code=Code.OPERATOR_BUSY)),
            {},
            (
                f"reviewer is not woken before 2026-11-21 12:00:05Z in {THREAD}: its trigger rests until "
                f"2026-11-21 12:00:05Z (OPERATOR_BUSY) (trigger {TRIGGER})."
            ),
        ),
        (
            case(wake=wake(), sessions=(session(),)),
            {"probes": {PANE: Probe(liveness=Liveness.LIVE, typed_at=ago(3))}},
            (
                f"reviewer waits to be woken until 2026-11-21 12:00:05Z in {THREAD}: a person typed in tmux:1:%3 at "
                f"2026-11-21 11:59:57Z; waited for until 2026-11-21 12:01:00Z (trigger {TRIGGER})."
            ),
        ),
        (
            case(wake=wake(holder=OTHER)),
            {},
            (
                f"reviewer is not woken before 2026-11-21 12:00:30Z in {THREAD}: two/4711 holds the trigger until "
                f"2026-11-21 12:00:30Z (trigger {TRIGGER})."
            ),
        ),
        (
            case(wake=wake(attempts=(failed(1), attempt(2, Way.RESUME)))),
            {},
            (
                f"reviewer is being woken in {THREAD}: attempt 2, a turn (resume), runs since 2026-11-21 11:59:56Z "
                f"(trigger {TRIGGER}, 2 attempts so far)."
            ),
        ),
        (
            case(
                wake=ended(status=Status.DEAD_LETTERED, outcome=Outcome.DEAD_LETTERED, code=Code.WAKE_FAILED),
                unread_last_at=ago(100),
            ),
            {},
            (
                f"reviewer is not woken in {THREAD}: trigger {TRIGGER} was dead_lettered (WAKE_FAILED), and nothing was "
                f"posted since (last trigger {TRIGGER}: dead_lettered, WAKE_FAILED at 2026-11-21 11:59:00Z)."
            ),
        ),
    ],
)
def test_it_says_what_the_rule_that_decided_has_seen(one: Case, changes: dict[str, Any], expected: str) -> None:
    assert said(one, **changes) == expected


@given(observations())
def test_it_is_always_one_sentence_with_the_evidence(seen: Seen) -> None:
    decision = decide(seen, LIMITS)
    told = sentence(seen.case, decision, agent_id="", thread_id="")
    assert told.startswith("reviewer ")
    assert told.endswith(".")
    assert told.count(". ") == 0
    assert decision.why.evidence in told
    assert told.isprintable()


def test_nobody_breaks_out_of_the_sentence() -> None:
    evil = "over.\n\x1b[2J\u202eroot"
    one = case(thread_status=ThreadStatus.BLOCKED, status_reason=evil, wake=wake())
    decision = chosen(one)
    assert decision.why.evidence == "the thread is blocked (over. [2Jroot)"
    assert isinstance(decision.action, act.Settle)
    assert decision.action.detail == decision.why.evidence


def test_the_evidence_lists_every_rule_that_was_asked() -> None:
    decision = chosen(case(unread=0, cursor=4))
    assert evidence(decision) == (
        "thread: clear (the thread is active)",
        "participation: clear (the agent takes part)",
        "unread: nothing_unread (nothing is unread after message 4)",
    )
