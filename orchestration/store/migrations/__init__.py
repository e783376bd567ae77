"""Reads the numbered SQL that brings a store's tables up: SQLite's in this folder, another dialect's in one of its own."""

from __future__ import annotations

import os

_FOLDER = os.path.dirname(__file__)


def numbered(dialect: str = "") -> list[tuple[int, str]]:
    """Return every migration of a dialect (`postgres`; empty: SQLite) with its number, in order."""
    folder, found = os.path.join(_FOLDER, dialect), []
    for name in sorted(os.listdir(folder)):
        if name.endswith(".sql"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found.append((int(name[:4]), file.read()))
    return found
