"""Root doing something as the owner of a folder, and being root again afterwards.

Owns the switch of the effective user and its groups; refuses to know what is done meanwhile. For others than root, and in
folders of root's own, it changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def as_owner_of(folder: str) -> Iterator[None]:
    """Be the owner of a folder for the block, so that what they may not read is not read for them."""
    try:
        owner = os.stat(folder)
    except OSError:
        owner = None
    if os.geteuid() != 0 or owner is None or owner.st_uid == 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups(groups_of(owner.st_uid, owner.st_gid))
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def groups_of(uid: int, gid: int) -> list[int]:
    """Return the groups of a user; of one that this host has no name for (a container's volume), the folder's alone."""
    import pwd

    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]
