"""Whether a folder that somebody names may be used with root's privileges.

Not one that others could exchange, or fill beforehand: a link or a store of theirs would then be followed as root.
"""

from __future__ import annotations

import os
import stat

from orchestration.errors import Usage


def nearest(path: str) -> str:
    """Return the folder itself, or the nearest one above it that there is; links resolved."""
    found = os.path.realpath(path)
    while not os.path.isdir(found):
        found = os.path.dirname(found)
    return found


def check(path: str, *, below: tuple[str, ...] = ()) -> None:
    """Refuse a folder that others than root and the present user could exchange or fill.

    The folder, when it is there, must be open to nobody else; those above it may be where they are sticky, as `/tmp` is.

    Args:
        path: without links; may be absent. below: names in it that must be the present user's folders, where they are there.

    Raises:
        Usage: says which folder, why, and what to do.
    """
    folder = nearest(path)
    _check(path, folder, sticky_will_do=folder != path)
    while folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        _check(path, folder, sticky_will_do=True)
    for inside in (os.path.join(path, name) for name in below):
        if os.path.lexists(inside) and not _is_own_folder(inside):
            raise _refused(path, f"{inside} is no folder of the user who runs this", "name another folder")


def _check(path: str, folder: str, *, sticky_will_do: bool) -> None:
    found = os.lstat(folder)
    if found.st_uid not in (0, os.geteuid()):
        hint = f"run it as that user (sudo -u '#{found.st_uid}' …), or name another folder"
        raise _refused(path, f"{folder} belongs to user {found.st_uid}", hint)
    is_open = found.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if found.st_gid else 0))
    if is_open and not (sticky_will_do and found.st_mode & stat.S_ISVTX):
        why = f"others may write to {folder} (mode {stat.S_IMODE(found.st_mode):04o}, group {found.st_gid})"
        raise _refused(path, why, f"chmod go-w {folder}, or name another folder")


def _is_own_folder(path: str) -> bool:
    found = os.lstat(path)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _refused(path: str, why: str, hint: str) -> Usage:
    return Usage(f"{path} is not used with root's privileges: {why}", hint=hint)
