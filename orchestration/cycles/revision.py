"""Which revision of the code a command runs: the commit of the git work tree that it lies in, read without running git.

Git itself may be missing, and refuses trees of other owners (safe.directory); HEAD is two small files.
Format: gitrepository-layout(5). A tree with changes has the revision of its last commit.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")  # SHA-1 or SHA-256
_MOST: Final = 16 * 1024 * 1024


def of_command(command: Sequence[str], working_dir: str) -> str | None:
    """Return the commit of the first work tree among the working folder and the files that the command names, or None.

    Args:
        command: program and arguments; those that are absolute paths of files count.
        working_dir: from the settings; "" when it runs in the cycle's own folder, which holds no code.
    """
    files = (word for word in command if word.startswith("/") and os.path.isfile(word))
    places = (*([working_dir] if working_dir else []), *map(os.path.dirname, files))
    return next(filter(None, map(revision, places)), None)


def revision(folder: str) -> str | None:
    """Return the commit that is checked out in the work tree around `folder`; None outside of one, or before any commit."""
    git_dir = _git_dir(os.path.realpath(folder))
    if git_dir is None:
        return None
    head = _line(os.path.join(git_dir, "HEAD"))
    return _resolved(git_dir, head.removeprefix("ref: ")) if head.startswith("ref: ") else _commit(head)


def _git_dir(folder: str) -> str | None:
    while True:
        path = os.path.join(folder, ".git")
        if os.path.isdir(path):
            return path
        if os.path.isfile(path):  # a linked work tree or a submodule: "gitdir: PATH"
            return os.path.join(folder, _line(path).removeprefix("gitdir: "))
        if folder == os.path.dirname(folder):
            return None
        folder = os.path.dirname(folder)


def _resolved(git_dir: str, ref: str) -> str | None:
    common = os.path.join(git_dir, _line(os.path.join(git_dir, "commondir")) or ".")
    for place in (git_dir, common):
        if found := _commit(_line(os.path.join(place, ref))):
            return found
    for line in _read(os.path.join(common, "packed-refs")).splitlines():
        commit, _, name = line.partition(" ")
        if name == ref:
            return _commit(commit)
    return None


def _commit(text: str) -> str | None:
    return text if _COMMIT.fullmatch(text) else None


def _line(path: str) -> str:
    return _read(path).partition("\n")[0].strip()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MOST)
    except OSError:
        return ""
