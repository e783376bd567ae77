"""The matrix of authority covers every method and standing, and who looks on changes nothing."""

from __future__ import annotations

from itertools import product

import pytest

from orchestration.bridge.authority import MATRIX, Leave, Standing, check, standing
from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.methods import METHODS
from orchestration.bridge.refusal import Refused


def test_every_method_has_a_word_for_every_standing() -> None:
    assert set(MATRIX) == set(product((method.name for method in METHODS), Standing))


def test_an_auditor_gets_exactly_what_reads() -> None:
    got = {method.name for method in METHODS if MATRIX[method.name, Standing.AUDITOR] is Leave.YES}
    assert got == {method.name for method in METHODS if method.read_only}


def test_nobody_gets_less_than_a_stranger_does() -> None:
    for method, at in product(
        (method.name for method in METHODS), (Standing.CREATOR, Standing.MEMBER, Standing.COORDINATOR)
    ):
        assert MATRIX[method, Standing.STRANGER] is not Leave.YES or MATRIX[method, at] is Leave.YES


@pytest.mark.parametrize(("role", "takes_part", "is_creator"), list(product(Role, (True, False), (True, False))))
def test_a_standing_is_the_role_and_for_participants_their_place(role: Role, takes_part: bool, is_creator: bool) -> None:
    who = Caller(agent_id="a", workspace_id="w", role=role, request_id="r")
    found = standing(who, takes_part=takes_part, created_by="a" if is_creator else "b")
    if role is not Role.PARTICIPANT:
        assert found.value == role.value
    else:
        assert found == ("stranger" if not takes_part else "creator" if is_creator else "member")


def test_a_member_leaves_and_sends_nobody_else_away() -> None:
    who = Caller(agent_id="a", workspace_id="w", role=Role.PARTICIPANT, request_id="r")
    check("remove_participant", who, Standing.MEMBER, concerns="a")
    with pytest.raises(Refused):
        check("remove_participant", who, Standing.MEMBER, concerns="b")


@pytest.mark.parametrize(
    ("method", "role", "takes"),
    [
        ("get_audit", Role.PARTICIPANT, "auditor or operator"),
        ("add_participant", Role.PARTICIPANT, "who opened the thread or coordinator or operator"),
        ("remove_participant", Role.PARTICIPANT, "who opened the thread or the agent itself or coordinator or operator"),
        ("post_message", Role.AUDITOR, "participant or coordinator or operator"),
    ],
)
def test_who_may_not_is_told_who_may(method: str, role: Role, takes: str) -> None:
    who = Caller(agent_id="a", workspace_id="w", role=role, request_id="r")
    with pytest.raises(Refused) as refused:
        check(method, who, standing(who, takes_part=True, created_by="b"), concerns="b")
    assert refused.value.message == f"{method} takes {takes}; you ask as {role}."
