"""Under which name a person on the host speaks: one, whichever face of klorosctl it is."""

from __future__ import annotations

import pytest

from orchestration.bridge.auth.claims import is_agent, is_name
from orchestration.bridge.caller import operator_name


@pytest.mark.parametrize(
    ("actor", "name"),
    [
        ("ada", "operator:ada"),
        ("ada (sudo, as kloros)", "operator:ada:as:kloros"),
        ("uid 1001", "operator:uid-1001"),
        ("jürgen\n", "operator:j-rgen-"),
        ("x" * 300, "operator:" + "x" * 100),
    ],
)
def test_a_person_has_one_name_that_the_wire_can_carry_and_no_token(actor: str, name: str) -> None:
    assert operator_name(actor) == name
    assert is_name(name)
    assert not is_agent(name)
