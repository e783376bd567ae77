"""Stand-ins: what lies in a mirror for a file that can't be read where it is, and says why.

A stand-in is a symbolic link that leads nowhere; its text is `kloros: <code>: <reason>`. Whoever meets one instead of the
file comes to the same end as somebody who met the file itself.
"""

from __future__ import annotations

import os
import stat

_MARK = "kloros: "
_LONGEST = 1000  # characters; a link's text may have 4095 bytes (PATH_MAX, limits.h)


def text(code: str, reason: str) -> str:
    """Return the text of a stand-in."""
    return f"{_MARK}{code}: {reason}"[:_LONGEST].replace("\0", " ")


def read(path: str) -> tuple[str, str] | None:
    """Return code and reason of a stand-in; None of everything else.

    Raises:
        OSError: it can't be looked at.
    """
    if not stat.S_ISLNK(os.lstat(path).st_mode):
        return None
    return parse(os.readlink(path))


def parse(target: str) -> tuple[str, str] | None:
    """Return code and reason of a stand-in's text; None of every other."""
    if not target.startswith(_MARK):
        return None
    code, _, reason = target[len(_MARK) :].partition(": ")
    return code, reason
