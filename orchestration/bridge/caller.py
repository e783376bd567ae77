"""Who asks: the identity that authentication has verified, never what a payload says of itself."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple

OPERATOR: Final = "operator:"
GUARD: Final = "kloros:bridge"
"""Who speaks when the bridge itself does."""
_SUDO: Final = re.compile(r"(\S+) \(sudo, as (.+)\)")
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9._@:-]")
_LONGEST_ACTOR: Final = 100


class Role(StrEnum):
    """What an identity may do in its workspace; the matrix is `authority.py`."""

    PARTICIPANT = "participant"
    COORDINATOR = "coordinator"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    """A person on the host, through klorosctl; no token carries it."""


class Caller(NamedTuple):
    """One verified identity, and the request it makes."""

    agent_id: str
    workspace_id: str
    role: Role
    request_id: str
    session_id: str = ""
    token_id: str = ""
    """The token's `jti`; empty for an operator."""
    traceparent: str = ""
    """W3C trace context of the request, as it came; empty when it had none."""


def operator_name(actor: str) -> str:
    """Name a person on the host in the form that agents have: `operator:ada`, after sudo `operator:ada:as:kloros`.

    Args:
        actor: as klorosctl tells it: `ada`, `ada (sudo, as kloros)`.
    """
    after_sudo = _SUDO.fullmatch(actor)
    name = ":as:".join(after_sudo.groups()) if after_sudo else actor
    return OPERATOR + _NOT_IN_A_NAME.sub("-", name)[:_LONGEST_ACTOR]
