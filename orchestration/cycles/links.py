"""Whether a symbolic link stays inside a folder, by the names alone.

Pure, so that making, verifying and extracting a bundle ask the same question, and none has to follow a link to answer it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str, ...]
"""The names from the folder down; `()` is the folder itself."""

_MOST_LINKS: Final = 40  # Linux gives up after as many (path_resolution(7))


def stays_inside(path: Path, links: Mapping[Path, str]) -> bool:
    """Tell whether the link at `path` leads to a place inside the folder, there or not, through whatever other links.

    A circle leads nowhere and counts as leaving; so does an absolute target, wherever the folder lies.

    Args:
        path: of the link. links: the target of every link in the folder, `path` included.
    """
    at, ahead, followed = list(path[:-1]), [path[-1]], 0
    while ahead:
        name = ahead.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if not at:
                return False
            at.pop()
            continue
        target = links.get((*at, name))
        if target is None:
            at.append(name)
            continue
        followed += 1
        if target.startswith("/") or followed > _MOST_LINKS:
            return False
        ahead.extend(reversed(target.split("/")))
    return True
