"""Reads the report that a PHASE left; what it says is for `result.py`."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

_LIMIT: Final = 4 * 1024 * 1024  # bytes of a report that is looked at


def read(path: str | None, sha: str | None) -> dict[str, Any]:
    """Return the report; empty when it is no JSON object, is gone, or has changed since its PHASE ended.

    `path` as the cycle's result names it; `sha` is its SHA-256 then, hexadecimal, None when it was not taken.
    """
    from orchestration.promotions.scan import read_regular

    if path is None:
        return {}
    try:
        content, _ = read_regular(path, limit=_LIMIT)
        if len(content) > _LIMIT or (sha is not None and hashlib.sha256(content).hexdigest() != sha):
            return {}
        found = json.loads(content)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
