"""This host's own issuer of tokens, for where there is no other: signs with the key that the ring has for it."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Final, NamedTuple

import jwt

from orchestration.bridge.auth.ring import Issued, Ring, Signing

LONGEST: Final = timedelta(days=366)


class Token(NamedTuple):
    """A token as its holder gets it: once, for it is kept nowhere."""

    text: str
    token_id: str
    expires_at: float


def issue(
    ring: Ring,
    *,
    issuer: str,
    audience: str,
    agent_id: str,
    workspace_id: str,
    role: str,
    session_id: str,
    ttl: timedelta,
    by: str,
    now: float,
) -> Token:
    """Sign a token.

    Args:
        issuer, audience: as the bridge wants them. by: who asked for it, for the record. now: seconds since the epoch.

    Raises:
        Unwritable, LockHeld, RingUnusable: of the ring.
    """
    token_id = secrets.token_hex(16)
    issued_at = int(now)
    expires_at = issued_at + int(ttl.total_seconds())
    claims = {
        "iss": issuer,
        "aud": audience,
        "agent_id": agent_id,
        "workspace_id": workspace_id,
        "role": role,
        "session_id": session_id,
        "iat": issued_at,
        "exp": expires_at,
        "jti": token_id,
    }

    def signed(signing: Signing) -> str:
        return jwt.encode(claims, signing.key, algorithm="EdDSA", headers={"kid": signing.kid})

    text = ring.sign(signed, Issued(token_id, agent_id, workspace_id, role, issued_at, expires_at, by), now)
    return Token(text, token_id, expires_at)
