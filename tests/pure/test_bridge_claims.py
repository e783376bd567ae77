"""What a token must say: each claim, one at a time, over a token that is good."""

from __future__ import annotations

import math

import pytest

from orchestration.bridge.auth.claims import LEEWAY, Rejected, Rule, read
from orchestration.bridge.caller import Role

NOW = 1_800_000_000.0
GOOD: dict[str, object] = {
    "iss": "https://id.example.org/",
    "aud": "kloros-bridge",
    "agent_id": "reviewer",
    "workspace_id": "kloros",
    "role": "coordinator",
    "session_id": "s-1",
    "iat": NOW - 10,
    "exp": NOW + 600,
    "jti": "t-1",
}
NEEDED = sorted(GOOD)


def rule_of(**other: object) -> Rule | None:
    said = {name: value for name, value in {**GOOD, **other}.items() if value is not None}
    try:
        read(said, issuer="https://id.example.org/", audience="kloros-bridge", now=NOW)
    except Rejected as error:
        return error.rule
    return None


def test_good_claims_say_who_it_is() -> None:
    identity = read(GOOD, issuer="https://id.example.org/", audience="kloros-bridge", now=NOW)
    assert (identity.agent_id, identity.workspace_id, identity.role) == ("reviewer", "kloros", Role.COORDINATOR)
    assert (identity.session_id, identity.token_id, identity.expires_at) == ("s-1", "t-1", NOW + 600)


@pytest.mark.parametrize("name", NEEDED)
def test_every_claim_is_needed(name: str) -> None:
    assert rule_of(**{name: None}) is Rule.CLAIM_MISSING


@pytest.mark.parametrize("name", sorted(set(NEEDED) - {"aud"}))
@pytest.mark.parametrize("value", [[], {}, True, "", "a\x00b", "x" * 201], ids=repr)
def test_a_claim_of_another_kind_is_none(name: str, value: object) -> None:
    assert rule_of(**{name: value}) is not None


@pytest.mark.parametrize("name", ["agent_id", "workspace_id"])
@pytest.mark.parametrize("value", ["a b", "-a", "a\n", "ä", "../x", "x" * 129])
def test_names_are_those_of_the_wire(name: str, value: str) -> None:
    assert rule_of(**{name: value}) is Rule.CLAIM_MALFORMED


@pytest.mark.parametrize("name", ["operator:root", "Operator:ada", "kloros:bridge"])
def test_no_token_speaks_under_the_name_of_a_person_or_of_the_bridge(name: str) -> None:
    assert rule_of(agent_id=name) is Rule.CLAIM_MALFORMED
    assert rule_of(workspace_id=name) is None


@pytest.mark.parametrize("role", [*Role])
def test_no_token_makes_an_operator(role: Role) -> None:
    assert rule_of(role=role.value) is (Rule.ROLE if role is Role.OPERATOR else None)


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        ({"iss": "https://other.example.org/"}, Rule.ISSUER),
        ({"aud": "other"}, Rule.AUDIENCE),
        ({"aud": ["other", "kloros-bridge"]}, None),
        ({"aud": ["other"]}, Rule.AUDIENCE),
        ({"aud": []}, Rule.AUDIENCE),
        ({"role": "admin"}, Rule.ROLE),
        ({"exp": NOW - LEEWAY + 0.1}, None),
        ({"exp": NOW - LEEWAY}, Rule.EXPIRED),
        ({"iat": NOW + LEEWAY}, None),
        ({"iat": NOW + LEEWAY + 0.1}, Rule.NOT_YET_VALID),
        ({"nbf": NOW + LEEWAY}, None),
        ({"nbf": NOW + LEEWAY + 0.1}, Rule.NOT_YET_VALID),
        ({"exp": math.inf}, Rule.CLAIM_MALFORMED),
        ({"exp": math.nan}, Rule.CLAIM_MALFORMED),
        ({"exp": 10**400}, Rule.CLAIM_MALFORMED),
        ({"exp": "soon"}, Rule.CLAIM_MALFORMED),
        ({"nbf": "soon"}, Rule.CLAIM_MALFORMED),
    ],
)
def test_each_claim_by_itself(other: dict[str, object], rule: Rule | None) -> None:
    assert rule_of(**other) is rule
