"""Verifies what an `Authorization` header shows, and remembers what it has verified.

Theory. Checking a signature costs more than all the rest of a request, so a token that was found good stays so until it
expires, is revoked, or the trusted keys change (their generation). Refusals are not remembered: they must not push out those
that are good. What is remembered is bounded; the oldest go first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from orchestration.bridge.auth import claims
from orchestration.bridge.auth.claims import LEEWAY, Identity, Rejected, Rule
from orchestration.bridge.auth.jwks import Key
from orchestration.bridge.auth.keys import Keys

LONGEST: Final = 8 * 1024
MOST_REMEMBERED: Final = 4096
_SCHEME: Final = b"bearer "
_ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")


class _Good(NamedTuple):
    identity: Identity
    generation: int


class Verifier:
    """The check that each request passes."""

    def __init__(self, keys: Keys, *, issuer: str, audience: str, now: Callable[[], float]) -> None:
        """Verify with these keys; `now` gives seconds since the epoch."""
        self._revoked: Collection[str] = frozenset()
        self._held: dict[asyncio.Future[None], str] = {}
        """Who waits under which token."""
        self._keys, self._issuer, self._audience, self._now = keys, issuer, audience, now
        self._jws = PyJWS(algorithms=_ALGORITHMS)
        self._good: dict[bytes, _Good] = {}

    @property
    def revoked(self) -> Collection[str]:
        """Token ids that are taken no more; whoever watches the store replaces it, which ends what waits under them."""
        return self._revoked

    @revoked.setter
    def revoked(self, token_ids: Collection[str]) -> None:
        if token_ids == self._revoked:
            return
        self._revoked = token_ids
        for future, token_id in self._held.items():
            if token_id in token_ids and not future.done():
                future.set_result(None)

    @contextmanager
    def held(self, token_id: str) -> Iterator[asyncio.Future[None]]:
        """Give what is done once a token is revoked, for whoever waits under it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held[future] = token_id
        if token_id in self._revoked:
            future.set_result(None)
        try:
            yield future
        finally:
            del self._held[future]

    async def verify(self, authorization: bytes) -> Identity:
        """Return who shows this header's value.

        Raises:
            Rejected: nobody we know. KeysUnavailable: it can't be told now.
        """
        good = self._good.get(authorization)
        if good is None or good.generation != self._keys.generation:
            good = await self._verified(authorization)
        else:
            self._keys.known()  # they may have become too old
        self.check(good.identity)
        return good.identity

    def check(self, identity: Identity) -> None:
        """See that a verified token still counts; for whoever holds on for long. Raises: Rejected."""
        if self._now() >= identity.expires_at + LEEWAY:
            raise Rejected(Rule.EXPIRED)
        if identity.token_id in self._revoked:
            raise Rejected(Rule.REVOKED)

    async def _verified(self, authorization: bytes) -> _Good:
        self._good.pop(authorization, None)
        token = _shown(authorization)
        kid, algorithm = self._header(token)
        key = await self._keys.find(kid)
        if key is None:
            raise Rejected(Rule.UNKNOWN_KEY)
        if algorithm != key.algorithm:
            raise Rejected(Rule.ALGORITHM)
        said = self._signed(token, key)
        identity = claims.read(said, issuer=self._issuer, audience=self._audience, now=self._now())
        good = _Good(identity, self._keys.generation)
        while len(self._good) >= MOST_REMEMBERED:
            del self._good[next(iter(self._good))]
        self._good[authorization] = good
        return good

    def _header(self, token: bytes) -> tuple[str, str]:
        try:
            header = self._jws.get_unverified_header(token)
        except (PyJWTError, ValueError, RecursionError) as error:
            raise Rejected(Rule.NOT_A_TOKEN) from error
        kid, algorithm = header.get("kid"), header.get("alg")
        if "crit" in header or header.get("b64", True) is not True:
            raise Rejected(Rule.NOT_A_TOKEN)
        if algorithm not in _ALGORITHMS:
            raise Rejected(Rule.ALGORITHM)
        if not isinstance(kid, str):
            raise Rejected(Rule.UNKNOWN_KEY)
        return kid, algorithm

    def _signed(self, token: bytes, key: Key) -> dict[str, object]:
        try:
            payload = self._jws.decode_complete(token, key.key, algorithms=[key.algorithm])["payload"]
        except (PyJWTError, ValueError) as error:
            raise Rejected(Rule.SIGNATURE) from error
        try:
            said = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise Rejected(Rule.NOT_A_TOKEN) from error
        if not isinstance(said, dict):
            raise Rejected(Rule.NOT_A_TOKEN)
        return said


def _shown(authorization: bytes) -> bytes:
    if not authorization:
        raise Rejected(Rule.NO_TOKEN)
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise Rejected(Rule.NOT_A_TOKEN)
    token = authorization[len(_SCHEME) :].strip()
    if not token or len(token) > LONGEST:
        raise Rejected(Rule.NOT_A_TOKEN)
    return token
