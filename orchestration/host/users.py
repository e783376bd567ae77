"""The users of this host, by name: who owns something, and who stands behind this process."""

from __future__ import annotations

import os
from collections.abc import Mapping

_NOBODY_LOGGED_IN = 2**32 - 1  # loginuid before any login, proc(5)


def name_of(uid: int) -> str:
    """Return a user's name, or `uid 1234` for one without."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def behind(environ: Mapping[str, str]) -> frozenset[str]:
    """Name every user who stands behind this process, as far as the host tells.

    Its own user, who became it by sudo (`SUDO_USER`), and who logged in to begin with, which neither sudo nor a variable
    changes (`/proc/self/loginuid`, proc(5); not there in every container).
    """
    names = {name_of(os.getuid())}
    if environ.get("SUDO_USER"):
        names.add(environ["SUDO_USER"])
    login = _login_uid()
    if login is not None:
        names.add(name_of(login))
    return frozenset(names)


def _login_uid() -> int | None:
    try:
        with open("/proc/self/loginuid", encoding="ascii") as file:
            uid = int(file.read())
    except (OSError, ValueError):
        return None
    return None if uid == _NOBODY_LOGGED_IN else uid
