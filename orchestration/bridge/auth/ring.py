"""The keys of this host's own issuer, in one file (0600): the one that signs, and older ones while tokens of theirs live.

Owns the file, its changes under a lock, and the record of the tokens that were issued; knows nothing of who may ask for one.
Rotation is one rename: whoever reads sees the ring before it or after it. A private key is gone as soon as another signs.
Ed25519 as a JWK: RFC 8037; the key's id is its thumbprint, RFC 7638.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from orchestration.bridge.auth.claims import LEEWAY
from orchestration.errors import KlorosError
from orchestration.host import files
from orchestration.host.lock import FileLock

_VERSION: Final = 1
_MOST_ISSUED: Final = 10_000
_Made = TypeVar("_Made")


class RingUnusable(KlorosError):
    """The ring can't be read, or others may read it."""


class Issued(NamedTuple):
    """One token that was issued, without the token."""

    token_id: str
    agent_id: str
    workspace_id: str
    role: str
    issued_at: float
    expires_at: float
    by: str


class Signing(NamedTuple):
    """The key that signs now."""

    kid: str
    key: Ed25519PrivateKey


class Ring:
    """One file of keys."""

    def __init__(self, path: str, lock_path: str) -> None:
        """Take the file, which need not be there yet, and the lock under which it is changed."""
        self._path = path
        self._lock = FileLock(lock_path)

    def identity(self) -> tuple[int, ...] | None:
        """Return what changes whenever the file does; None when there is none."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def jwks(self, now: float) -> dict[str, list[dict[str, str]]]:
        """Return the public keys: the one that signs, and those whose tokens may still be in use."""
        keys = [one for one in self._read()["keys"] if _is_needed(one, now)]
        return {"keys": [{name: str(one[name]) for name in ("kty", "crv", "alg", "use", "kid", "x")} for one in keys]}

    def issued(self, now: float) -> list[Issued]:
        """Return the tokens that have not expired, oldest first."""
        return [Issued(*one) for one in self._read()["issued"] if one[5] + LEEWAY > now]

    def ensure(self, now: float) -> None:
        """Make the first key unless there is one.

        Raises:
            Unwritable, LockHeld, RingUnusable
        """
        if self.identity() is None:
            self._change(now, lambda _ring: None)

    def rotate(self, now: float) -> str:
        """Let a new key sign from now on; returns its id. Raises: as `ensure`."""

        def rotated(ring: dict[str, Any]) -> str:
            for one in ring["keys"]:
                one.pop("d", None)
            ring["keys"].append(_new_key(now))
            return str(ring["keys"][-1]["kid"])

        return self._change(now, rotated)

    def sign(self, sign: Callable[[Signing], str], token: Issued, now: float) -> str:
        """Give the key that signs now, and note the token; returns what was signed. Raises: as `ensure`."""

        def signed(ring: dict[str, Any]) -> str:
            (key,) = (one for one in ring["keys"] if "d" in one)
            key["tokens_until"] = max(key["tokens_until"], token.expires_at)
            ring["issued"] = [*ring["issued"][1 - _MOST_ISSUED :], list(token)]
            return sign(Signing(key["kid"], Ed25519PrivateKey.from_private_bytes(_bytes(key["d"]))))

        return self._change(now, signed)

    def _change(self, now: float, change: Callable[[dict[str, Any]], _Made]) -> _Made:
        with self._lock.held("token", patience=5.0):
            ring = self._read()
            if not any("d" in one for one in ring["keys"]):
                ring["keys"].append(_new_key(now))
            made = change(ring)
            ring["keys"] = [one for one in ring["keys"] if _is_needed(one, now)]
            ring["issued"] = [one for one in ring["issued"] if one[5] + LEEWAY > now]
            files.make_folder(os.path.dirname(self._path))
            files.replace(self._path, json.dumps(ring, indent=1).encode() + b"\n", mode=0o600)
        return made

    def _read(self) -> dict[str, Any]:
        try:
            with open(self._path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                ring = json.load(file)
        except FileNotFoundError:
            return {"version": _VERSION, "keys": [], "issued": []}
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no JSON"
            raise RingUnusable(f"the keys in {self._path} can't be read: {why}", hint="run it as its owner: sudo") from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            told = f"the keys in {self._path} may be read by others (mode {stat.S_IMODE(mode):04o})"
            raise RingUnusable(told, hint=f"chmod 0600 {self._path}; klorosctl token rotate")
        if not isinstance(ring, dict) or ring.get("version") != _VERSION:
            raise RingUnusable(f"{self._path} is not of this version", hint="move it away: a new one is made")
        return ring


def _is_needed(key: dict[str, Any], now: float) -> bool:
    return "d" in key or key["tokens_until"] + LEEWAY > now


def _new_key(now: float) -> dict[str, Any]:
    made = Ed25519PrivateKey.generate()
    x = _text(made.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"))
    thumbprint = hashlib.sha256(members.encode()).digest()
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": _text(thumbprint),
        "x": x,
        "d": _text(made.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())),
        "created_at": now,
        "tokens_until": now,
    }


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
