"""The end of a log, fit to be shown: bounded, whatever is in it, and without characters that act on a terminal or a page."""

from __future__ import annotations

import os
import re
import stat
from typing import Final, NamedTuple

MOST_BYTES: Final = 16_384
LINES: Final = 20
_COLOURS: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])"
)  # ECMA-48: CSI, OSC, others


class Tail(NamedTuple):
    """The end of a file."""

    size: int  # bytes of the whole file
    text: str
    truncated: bool  # the text is not all of it


def tail(path: str, *, lines: int = LINES, most_bytes: int = MOST_BYTES) -> Tail | None:
    """Read the last lines of a regular file, of at most so many bytes; None when it can't be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        start = max(0, status.st_size - most_bytes)
        data = os.pread(descriptor, most_bytes, start)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    shown = plain(data).splitlines()
    kept = shown[-lines:] if lines else []
    return Tail(status.st_size, "\n".join(kept), start > 0 or len(kept) < len(shown))


def plain(data: bytes) -> str:
    """Return output as text: bytes that are no UTF-8 replaced, colours taken out, other control characters written out."""
    text = _COLOURS.sub("", data.decode("utf-8", "replace")).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(one if one in "\n\t" or one.isprintable() or one == " " else _written(one) for one in text)


def _written(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
