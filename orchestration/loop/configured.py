"""Who configured a setting, and when: for the record of what runs with nobody there.

A file's owner and the time of its last change; a flag or variable is said by whoever starts the loop, when it starts.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from orchestration.host import clock

_NO_LOGIN: Final = 2**32 - 1  # audit(7): nobody has logged in, as in a service


class Configured(NamedTuple):
    """Who configured something, and when (aware UTC)."""

    who: str
    at: datetime


def in_file(path: str) -> Configured:
    """Return the owner of a file and when it was changed.

    Raises:
        OSError: it can't be asked.
    """
    found = os.stat(path)
    return Configured(_name(found.st_uid), datetime.fromtimestamp(found.st_mtime, UTC))


def by_caller(environ: Mapping[str, str]) -> Configured:
    """Return the person who starts this process, now: before sudo, else who logged in, else the user it runs as."""
    return Configured(environ.get("SUDO_USER") or _name(_login_uid()), clock.now())


def _login_uid() -> int:
    try:
        with open("/proc/self/loginuid", encoding="ascii") as file:  # proc_pid_loginuid(5)
            uid = int(file.read())
    except (OSError, ValueError):
        uid = _NO_LOGIN
    return os.getuid() if uid == _NO_LOGIN else uid


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
