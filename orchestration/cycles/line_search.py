"""Searches a file for lines that match patterns, `python line_search.py PATH SECONDS`.

A process of its own, for a regular expression can backtrack for longer than the host lives, and nothing in Python can stop
it. Reads `{name: pattern}` as JSON from its input; when it has looked through the whole file for one pattern, it prints
`[name, number of lines, [the first of them]]`, one line of JSON, and goes on with the next. The kernel ends it `SECONDS`
after a pattern's turn began (SIGALRM), also when nobody waits for it any more; so the first name that was not printed is the
one that took too long. Knows nothing of cycles and rules: `sightings.py` asks and makes sense of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Final

NAMED: Final = 5
LONGEST: Final = 1 << 16
"""Bytes of a line; what is longer is looked at in pieces, for backtracking takes memory and time by its length."""
_SHOWN: Final = 300  # characters of a line that is kept
_READ: Final = 1 << 20


def main() -> int:
    """Search for every pattern in turn."""
    path, seconds = sys.argv[1], float(sys.argv[2])
    for name, pattern in json.load(sys.stdin).items():
        signal.setitimer(signal.ITIMER_REAL, seconds)
        number, lines = search(path, re.compile(pattern))
        print(json.dumps([name, number, lines]), flush=True)
    return 0


def search(path: str, pattern: re.Pattern[str]) -> tuple[int, list[str]]:
    """Count the lines of a file that match anywhere, and return the first of them."""
    number, found = 0, list[str]()
    for line in _lines(path):
        if pattern.search(line):
            number += 1
            if len(found) < NAMED:
                found.append(_shown(line))
    return number, found


def _lines(path: str) -> Iterator[str]:
    """Give the lines of a file as long as it was when it was opened."""
    with open(path, "rb") as file:
        left, kept = os.fstat(file.fileno()).st_size, b""
        while left > 0 and (read := file.read(min(_READ, left))):
            left -= len(read)
            *whole, kept = (kept + read).split(b"\n")
            for line in whole:
                yield from _pieces(line)
            if len(kept) > LONGEST:
                *whole, kept = (kept[at : at + LONGEST] for at in range(0, len(kept), LONGEST))
                yield from (piece.decode("utf-8", "replace") for piece in whole)
        if kept:
            yield from _pieces(kept)


def _pieces(line: bytes) -> Iterator[str]:
    if len(line) <= LONGEST:
        yield line.decode("utf-8", "replace")
    else:
        yield from (line[at : at + LONGEST].decode("utf-8", "replace") for at in range(0, len(line), LONGEST))


def _shown(line: str) -> str:
    shown = "".join(one if one.isprintable() else " " for one in line[: _SHOWN * 2]).strip()
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
