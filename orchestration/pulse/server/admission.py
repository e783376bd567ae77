"""Who may read: the names under which the server may be asked, and the token.

On loopback no login is needed, so a page of some other site must not get in through the reader's own browser: a name that
was made to lead here (DNS rebinding) is refused by the `Host` header. Beyond loopback each request shows the token, as
`Authorization: Bearer`, or as the password of `Basic`, which browsers ask for by themselves: no cookie, no address with a
token in it, no form (RFC 6750, RFC 7617).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from typing import Final

from orchestration.errors import SettingsInvalid

CREDENTIAL: Final = "pulse-token"
SHORTEST: Final = 16
_LONGEST: Final = 4096
_MAKE = "make one: (umask 077; head -c 24 /dev/urandom | base64 >{path})"


def read_token(path: str, environ: Mapping[str, str]) -> str | None:
    """Return the token of the file, or of systemd's credential; None when neither is given.

    Raises:
        SettingsInvalid: it can't be read, is too short, or others may read it.
    """
    credentials = environ.get("CREDENTIALS_DIRECTORY", "")
    given = os.path.join(credentials, CREDENTIAL) if credentials and not path else path
    if not path and not os.path.exists(given):
        return None
    try:
        with open(given, encoding="ascii") as file:
            found = os.fstat(file.fileno())
            token = file.read(_LONGEST + 1).strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not plain ASCII text"
        raise SettingsInvalid(f"the token file {given}: {why}", hint=_MAKE.format(path=given)) from error
    if path and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        others = f"others may read it (mode {stat.S_IMODE(found.st_mode):04o})"
        raise SettingsInvalid(f"the token file {given}: {others}", hint=f"chmod 0600 {given}; then make another token")
    if not SHORTEST <= len(token) <= _LONGEST or not token.isprintable() or " " in token:
        fault = f"it must hold {SHORTEST} to {_LONGEST} characters without blanks"
        raise SettingsInvalid(f"the token file {given}: {fault}", hint=_MAKE.format(path=given))
    return token


class Admission:
    """The check that each request passes."""

    def __init__(self, *, token: str | None, hosts: Iterable[str] = ()) -> None:
        """Admit with this token, under any name; without one, under local names and these."""
        self._digest = None if token is None else _digest(token.encode())
        own = socket.gethostname().lower()
        self._hosts = {"localhost", own, own.partition(".")[0], *(_name(host) for host in hosts)}

    def knows(self, host: str) -> bool:
        """Tell whether the server may be asked under this `Host`; an empty one comes from no browser."""
        return self._digest is not None or not host or self.is_own_name(host)

    def is_own_name(self, host: str) -> bool:
        """Tell whether a host, with or without a port, is this one."""
        name = _name(host)
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name in self._hosts

    def admits(self, authorization: str) -> bool:
        """Tell whether this `Authorization` shows the token, if one is needed. Takes as long for a near miss as for any."""
        if self._digest is None:
            return True
        scheme, _, shown = authorization.partition(" ")
        token = shown.strip().encode("utf-8", "replace") if scheme.lower() == "bearer" else b""
        if scheme.lower() == "basic":
            try:
                token = base64.b64decode(shown.strip(), validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                token = b""
        return hmac.compare_digest(_digest(token), self._digest)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _name(host: str) -> str:
    """Take the port off a `Host`: `[::1]:9410` is `::1`."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".") if name.count(":") == 1 else name.rstrip(".")
