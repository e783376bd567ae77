"""Why a tick decides as it does, for a person: every rule in order, what it saw, and which one decided. Pure."""

from __future__ import annotations

from typing import NamedTuple

from orchestration.tick.decision import RULES, Finding
from orchestration.tick.observation import Observation, Policy


class Explained(NamedTuple):
    """One rule's finding, whether it was the one that decided, and whether precedence let it be asked."""

    finding: Finding
    decided: bool
    asked: bool


def explain(seen: Observation, policy: Policy) -> tuple[Explained, ...]:
    """Ask every rule, those too that an earlier decision would have kept from being asked."""
    explained: list[Explained] = []
    decided = False
    for rule in RULES:
        finding, choice = rule(seen, policy)
        explained.append(Explained(finding, decided=not decided and choice is not None, asked=not decided))
        decided = decided or choice is not None
    return tuple(explained)
