"""Reading a growing file back together with what logrotate has made of it: `name`, `name.1`, `name.2.gz`, ….

Owns the order and the decompression; refuses to know what stands in a line. Higher numbers are older (logrotate(8)).
"""

from __future__ import annotations

import gzip
import os
from collections import deque


def newest_lines(path: str, limit: int) -> list[str]:
    """Return the newest lines, at most `limit`, oldest first; older files are opened only when there are too few.

    A rotation in between is no harm: files that moved on by one are recognised, and not read twice.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    number = 0
    while len(found) < limit:
        name = next((one for one in _names(path, number) if os.path.exists(one)), None)
        if name is None and number > 1:
            break
        number += 1
        if name is None:
            continue  # the file itself is absent between a rotation and the next line
        try:
            with open(name, "rb") as file:
                is_at = os.fstat(file.fileno())
                if (is_at.st_dev, is_at.st_ino) in seen:
                    continue
                seen.add((is_at.st_dev, is_at.st_ino))
                with gzip.open(file) if name.endswith(".gz") else file as content:
                    lines = deque(content, maxlen=limit - len(found))
        except FileNotFoundError:
            continue
        found[:0] = [line.decode("utf-8", "replace") for line in lines]
    return found


def _names(path: str, number: int) -> tuple[str, ...]:
    return (f"{path}.{number}", f"{path}.{number}.gz") if number else (path,)
