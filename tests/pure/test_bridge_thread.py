"""The lifecycle of a thread, over the full product of states, roles and reasons."""

from __future__ import annotations

from itertools import product

import pytest

from orchestration.bridge.caller import Role
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.thread import TRANSITIONS, Asked, changes, check_open
from orchestration.bridge.wire import ThreadStatus

FREE = {
    ("active", "blocked"),
    ("active", "resolved"),
    ("active", "closed"),
    ("blocked", "active"),
    ("resolved", "closed"),
}
MAY_OVERRIDE = {"human_override:": {"operator"}, "coordinator_override:": {"coordinator", "operator"}}
REASONS = (
    "",
    "because",
    "human_override:",
    "human_override:   ",
    "coordinator_override: ",
    "not human_override: x",
    "human_override: I looked at it",
    "coordinator_override: both agree",
)


def expected(current: str, wanted: str, role: str, reason: str) -> bool | Code:
    if current == wanted:
        return False
    if (current, wanted) in FREE:
        return True
    if (current, wanted) != ("blocked", "closed"):
        return Code.INVALID_THREAD_TRANSITION
    prefix, colon, rest = reason.partition(":")
    if prefix + colon not in MAY_OVERRIDE or not rest.strip():
        return Code.INVALID_THREAD_TRANSITION
    return True if role in MAY_OVERRIDE[prefix + colon] else Code.INSUFFICIENT_AUTHORITY


def outcome(current: ThreadStatus, why: str, asked: Asked) -> bool | Code:
    try:
        return changes(current, why, asked)
    except Refused as refused:
        return refused.code


@pytest.mark.parametrize(("current", "wanted"), list(product(ThreadStatus, ThreadStatus)))
def test_every_pair_of_states_does_what_the_issue_says(current: ThreadStatus, wanted: ThreadStatus) -> None:
    for role, reason in product(Role, REASONS):
        assert outcome(current, "", Asked(wanted, role, reason)) == expected(current, wanted, role, reason), (role, reason)


@pytest.mark.parametrize("why", ["loop_guard: 20 turns", "escalated: looks wrong"])
def test_a_block_that_stops_the_agents_is_not_lifted_by_them(why: str) -> None:
    found = {role: outcome(ThreadStatus.BLOCKED, why, Asked(ThreadStatus.ACTIVE, role)) for role in Role}
    assert found == {
        Role.PARTICIPANT: Code.INSUFFICIENT_AUTHORITY,
        Role.AUDITOR: Code.INSUFFICIENT_AUTHORITY,
        Role.COORDINATOR: True,
        Role.OPERATOR: True,
    }


@pytest.mark.parametrize(("current", "expected"), list(product(ThreadStatus, ThreadStatus)))
def test_a_change_meant_from_another_status_is_a_conflict(current: ThreadStatus, expected: ThreadStatus) -> None:
    for wanted in ThreadStatus:
        plain = outcome(current, "", Asked(wanted, Role.OPERATOR))
        found = outcome(current, "", Asked(wanted, Role.OPERATOR, expected=expected))
        assert found == (plain if expected is current or wanted is current else Code.CONFLICT)


def test_nothing_leaves_closed_and_everything_can_be_reached() -> None:
    assert ThreadStatus.CLOSED not in {current for current, _ in TRANSITIONS}
    assert {wanted for _, wanted in TRANSITIONS} == set(ThreadStatus)


@pytest.mark.parametrize("status", list(ThreadStatus))
def test_only_what_is_not_settled_takes_posts(status: ThreadStatus) -> None:
    if status in {"active", "blocked"}:
        check_open(status)
        return
    with pytest.raises(Refused) as refused:
        check_open(status)
    assert (refused.value.code, refused.value.status) == (Code.CONFLICT, 409)
