"""What a token must say, once its signature is known to be good: pure rules over its claims and the instant.

Every way to be wrong is a rule with a name. The name goes to log and metrics, never to whoever showed the token.
Claims: RFC 7519, section 4.1; `agent_id`, `workspace_id`, `role` and `session_id` are ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestration.bridge.caller import GUARD, OPERATOR, Role

LEEWAY: Final = 30.0
"""Seconds by which clocks may differ."""
MEMBERS: Final = frozenset({Role.PARTICIPANT, Role.COORDINATOR, Role.AUDITOR})
"""The roles that a token may carry; an operator has none."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}")
RESERVED: Final = (OPERATOR, GUARD.partition(":")[0] + ":")
"""How the names begin under which persons on the host, and the bridge itself, speak: no agent is called so."""
_LONGEST: Final = 200


class Rule(StrEnum):
    """Why a token is not taken."""

    NO_TOKEN = "auth.no_token"  # noqa: S105 - a rule's name
    NOT_A_TOKEN = "auth.not_a_token"  # noqa: S105
    ALGORITHM = "auth.algorithm"
    UNKNOWN_KEY = "auth.unknown_key"
    SIGNATURE = "auth.signature"
    CLAIM_MISSING = "auth.claim_missing"
    CLAIM_MALFORMED = "auth.claim_malformed"
    ROLE = "auth.role"
    ISSUER = "auth.issuer"
    AUDIENCE = "auth.audience"
    EXPIRED = "auth.expired"
    NOT_YET_VALID = "auth.not_yet_valid"
    REVOKED = "auth.revoked"


class Rejected(Exception):
    """A token is not taken, by this rule."""

    def __init__(self, rule: Rule, about: str = "") -> None:
        super().__init__(f"{rule}: {about}" if about else str(rule))
        self.rule = rule
        self.about = about  # a claim's name, for the log; never its value


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a verified token says."""

    agent_id: str
    workspace_id: str
    role: Role
    session_id: str
    token_id: str
    expires_at: float
    """Seconds since the epoch; the leeway is not in it."""


def read(claims: Mapping[str, object], *, issuer: str, audience: str, now: float) -> Identity:
    """Return who a token's claims say its holder is.

    Args:
        claims: of a token whose signature is good. issuer, audience: what `iss` and `aud` must be.
        now: seconds since the epoch.

    Raises:
        Rejected: with the first rule that they break.
    """
    if _text(claims, "iss") != issuer:
        raise Rejected(Rule.ISSUER)
    if audience not in _audiences(claims):
        raise Rejected(Rule.AUDIENCE)
    issued, expires = _instant(claims, "iat"), _instant(claims, "exp")
    if now >= expires + LEEWAY:
        raise Rejected(Rule.EXPIRED)
    if now < issued - LEEWAY or ("nbf" in claims and now < _instant(claims, "nbf") - LEEWAY):
        raise Rejected(Rule.NOT_YET_VALID)
    return Identity(
        agent_id=_agent(claims),
        workspace_id=_name(claims, "workspace_id"),
        role=_role(claims),
        session_id=_text(claims, "session_id"),
        token_id=_text(claims, "jti"),
        expires_at=expires,
    )


def _given(claims: Mapping[str, object], name: str) -> object:
    value = claims.get(name)
    if value is None:
        raise Rejected(Rule.CLAIM_MISSING, name)
    return value


def _text(claims: Mapping[str, object], name: str) -> str:
    value = _given(claims, name)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isprintable():
        raise Rejected(Rule.CLAIM_MALFORMED, name)
    return value


def is_name(text: str) -> bool:
    """Tell whether an agent or a workspace can be called so."""
    return _NAME.fullmatch(text) is not None


def _name(claims: Mapping[str, object], name: str) -> str:
    value = _text(claims, name)
    if not is_name(value):
        raise Rejected(Rule.CLAIM_MALFORMED, name)
    return value


def is_agent(text: str) -> bool:
    """Tell whether a token may be for an agent of this name."""
    return is_name(text) and not text.lower().startswith(RESERVED)


def _agent(claims: Mapping[str, object]) -> str:
    value = _name(claims, "agent_id")
    if not is_agent(value):
        raise Rejected(Rule.CLAIM_MALFORMED, "agent_id")
    return value


def _role(claims: Mapping[str, object]) -> Role:
    value = _text(claims, "role")
    if value not in MEMBERS:
        raise Rejected(Rule.ROLE)
    return Role(value)


def _instant(claims: Mapping[str, object], name: str) -> float:
    value = _given(claims, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Rejected(Rule.CLAIM_MALFORMED, name)
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise Rejected(Rule.CLAIM_MALFORMED, name)
    return seconds


def _audiences(claims: Mapping[str, object]) -> tuple[object, ...]:
    value = _given(claims, "aud")
    return tuple(value) if isinstance(value, list) else (value,)
