"""Names of files as pages show them."""

from __future__ import annotations

import os


def shown(path: str) -> str:
    """Write a path with what is no UTF-8 in it as `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
