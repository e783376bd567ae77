"""What turns print, read as JSON lines among whatever else stands there. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

_LONGEST: Final = 300
_SESSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,199}")
UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def objects(output: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Give the lines that are JSON objects."""
    for line in output:
        if not line.lstrip().startswith("{"):
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue  # cut, or none
        if isinstance(found, dict):
            yield found


def is_session(name: object) -> bool:
    """Say whether this can be a session's name: nothing that a program could take for an option."""
    return isinstance(name, str) and _SESSION.fullmatch(name) is not None


def words(value: object) -> str:
    """Write what went wrong as one short line."""
    text = value if isinstance(value, str) else json.dumps(value)
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
