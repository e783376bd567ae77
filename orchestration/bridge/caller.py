"""Who asks: the identity that authentication has verified, never what a payload says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What an identity may do in its workspace; the matrix is `authority.py`."""

    PARTICIPANT = "participant"
    COORDINATOR = "coordinator"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    """A person on the host, through klorosctl; no token carries it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
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
