"""Whether files that are copies of the store say what it says; and writing them again where they don't.

What was edited is never thrown away: it is put aside beside, as `.edited`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from orchestration.host import files

MODE = 0o640


def faults(wanted: Mapping[str, bytes]) -> list[str]:
    """Say which of these files (path → content) are not as they should be."""
    return [fault for path, data in wanted.items() if (fault := _fault(path, data))]


def differing(wanted: Mapping[str, bytes]) -> list[str]:
    """Return the paths of those that are not as they should be."""
    return [path for path, data in wanted.items() if _fault(path, data)]


def mend(wanted: Mapping[str, bytes]) -> list[str]:
    """Write those again that are not as they should be; return their paths.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    wrong = differing(wanted)
    put_aside(wrong)
    for path in wrong:
        files.replace(path, wanted[path], MODE)
    return wrong


def put_aside(paths: Iterable[str]) -> None:
    """Give files that are there another name; behind a link, what it leads to.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    for path in paths:
        if os.path.exists(path):
            files.move_no_replace(os.path.realpath(path), os.path.dirname(path), f"{os.path.basename(path)}.edited")


def _fault(path: str, data: bytes) -> str:
    try:
        with open(path, "rb") as file:
            found = file.read()
    except OSError as error:
        return f"{path} can't be read: {error.strerror}"
    if found == data:
        return ""
    at = next((n for n, (a, b) in enumerate(zip(found, data, strict=False)) if a != b), min(len(found), len(data)))
    return f"{path} was edited: it differs from byte {at} on"
