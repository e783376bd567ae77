"""The public keys of an issuer, out of its JWKS (RFC 7517, RFC 8037): which of them we use, and for which algorithm.

A key is good for one algorithm, that of its type, whatever a token's header says: so a public key can never be taken for a
secret, and `none` for an algorithm. What is no key for signatures of RS256, ES256 or EdDSA is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from jwt import PyJWK
from jwt.exceptions import InvalidKeyError, PyJWTError

from orchestration.errors import Malformed

MOST_KEYS: Final = 64
_ALGORITHMS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_SHORTEST_RSA: Final = 2048  # bits; RFC 7518, section 3.3


class Key(NamedTuple):
    """One public key of an issuer."""

    kid: str
    algorithm: str
    key: Any  # as the library wants it


def keys_of(document: bytes) -> dict[str, Key]:
    """Return the usable keys of a JWKS by their ids.

    Raises:
        Malformed: it is no JWKS, or has no usable key at all.
    """
    try:
        listed = json.loads(document)["keys"]
        found = [_key(one) for one in listed[:MOST_KEYS]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Malformed("it is no JWKS: an object with the list `keys` is expected") from error
    keys = {one.kid: one for one in found if one is not None}
    if not keys:
        raise Malformed("the JWKS has no key with a `kid` for signatures of RS256, ES256 or EdDSA")
    return keys


def _key(jwk: Mapping[str, Any]) -> Key | None:
    if not isinstance(jwk, dict):
        return None
    kty, kid = jwk.get("kty"), jwk.get("kid")
    algorithm = _ALGORITHMS.get((str(kty), None if kty == "RSA" else str(jwk.get("crv"))))
    if algorithm is None or not isinstance(kid, str) or not kid or not _is_for_signatures(jwk, algorithm):
        return None
    public = {name: value for name, value in jwk.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
    try:
        key = PyJWK(public, algorithm).key
    except (PyJWTError, InvalidKeyError, ValueError, TypeError, KeyError):
        return None
    if algorithm == "RS256" and key.key_size < _SHORTEST_RSA:
        return None
    return Key(kid, algorithm, key)


def _is_for_signatures(jwk: Mapping[str, Any], algorithm: str) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("use", "sig") == "sig"
        and jwk.get("alg", algorithm) == algorithm
        and isinstance(operations, list)
        and "verify" in operations
    )
