"""What is at a path, and making it what it is wanted to be, in one step.

It knows a unit's file from others: that is compared and written but for the mode in it, which operators switch there.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import suppress
from typing import Any

WATCHING = (".timer", ".path", ".socket")
_MODE = re.compile(rb"^Environment=KLR_ORCHESTRATION_MODE=(\w*)$", re.MULTILINE)
_ENABLED = b"Environment=KLR_ORCHESTRATION_MODE=enabled"

Look = dict[str, Any]
"""What is at a path: `{}` for nothing, `{"link": target}`, or `{"sha256": …, "mode": …}`."""


def is_unit(path: str) -> bool:
    return "/systemd/" in path and path.endswith((".service", *WATCHING))


def look(path: str) -> Look:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    if stat.S_ISLNK(found.st_mode):
        return {"link": os.readlink(path)}
    if not stat.S_ISREG(found.st_mode):
        return {"other": stat.filemode(found.st_mode)}
    data = read(path)
    if is_unit(path):
        data = _MODE.sub(_ENABLED, data)  # operators switch it here, see the README: not a change of the unit
    return {"sha256": hashlib.sha256(data).hexdigest(), "mode": stat.S_IMODE(found.st_mode)}


def put(path: str, wanted: Look, source: str) -> None:
    """Make a path what it is wanted to be, in one step. What an operator switched in a unit stays switched."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if "link" in wanted:
        beside = temporary_name(path)
        with suppress(FileNotFoundError):
            os.unlink(beside)
        os.symlink(wanted["link"], beside)
        os.rename(beside, path)
        return
    data = read(source)
    if is_unit(path) and os.path.isfile(path) and (switched := _MODE.search(read(path))):
        data = _MODE.sub(switched[0], data)
    write(path, data, wanted["mode"])


def temporary_name(path: str) -> str:
    """Return the path at which a file is written before it is renamed."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.kloros-new")


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def write(path: str, data: bytes, mode: int) -> None:
    beside = temporary_name(path)
    with suppress(FileNotFoundError):
        os.unlink(beside)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.rename(beside, path)
