"""Whole folders that others have filled: walked and removed however deep they go, without following a link.

The standard library recurses, and a command may well nest more folders than Python may calls.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def tree(folder: str, refused: Callable[[str, OSError], None]) -> Iterator[tuple[tuple[str, ...], str, os.stat_result]]:
    """Give a folder and everything in it, a parent first, names in order of their bytes.

    Args:
        folder: where to begin. refused: told what can't be looked at; it may raise.

    Returns:
        The names from the folder down (`()` is itself), the path, and what lstat(2) says.
    """
    ahead: list[tuple[str, ...]] = [()]
    while ahead:
        names = ahead.pop()
        path = os.path.join(folder, *names)
        try:
            status = os.lstat(path)
        except OSError as error:
            refused(path, error)
            continue
        yield names, path, status
        if stat.S_ISDIR(status.st_mode):
            try:
                inside = sorted(os.listdir(path), key=os.fsencode, reverse=True)
            except OSError as error:
                refused(path, error)
                continue
            ahead += [(*names, name) for name in inside]


def remove(folder: str, *, at_most: int | None = None) -> int:
    """Remove a folder of ours with everything in it, or a part; repeatable, until the folder is gone.

    What lies deeper is first moved up, so that no path grows beyond what the kernel takes.

    Args:
        folder: absent is removed. at_most: entries to remove now, or as many more as one folder in it has; None for all.

    Returns:
        How many entries were removed.

    Raises:
        OSError: it is a link or a file, or something in it may not be removed.
    """
    removed = 0
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
        os.chmod(folder, 0o700)
        while (inside := os.listdir(folder)) and (at_most is None or removed < at_most):
            for name in inside:
                removed += _remove_entry(os.path.join(folder, name), folder)
                if at_most is not None and removed >= at_most:
                    break
        if not inside:
            os.rmdir(folder)
    return removed


def _remove_entry(path: str, top: str) -> int:
    """Remove a file, or a folder's own files and then the folder, with the folders in it moved up to `top`."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return 1
    os.chmod(path, 0o700)
    removed = 1
    for name in os.listdir(path):
        inner = os.path.join(path, name)
        if stat.S_ISDIR(os.lstat(inner).st_mode):
            os.chmod(inner, 0o700)
            _move_up(inner, top)
        else:
            os.unlink(inner)
            removed += 1
    os.rmdir(path)
    return removed


def _move_up(folder: str, top: str) -> None:
    serial = 0
    while True:
        serial += 1
        try:
            os.rename(folder, os.path.join(top, f"{os.path.basename(folder)[:80]}~{os.getpid()}~{serial}"))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return
