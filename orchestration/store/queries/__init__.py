"""Loads the named SQL of this folder: one file an area, read on the first query of that area.

A dialect that needs another text has it under the same name in a folder of its own (`postgres/<area>.sql`); what that does
not name is the shared text.
"""

from __future__ import annotations

import os

_FOLDER = os.path.dirname(__file__)
_loaded: dict[str, dict[str, str]] = {}


def sql(name: str) -> str:
    """Return the shared text of the query `area.verb`, which is SQLite's.

    Raises:
        KeyError: no file of that area holds that name.
    """
    return sql_of(name, "")


def sql_of(name: str, dialect: str) -> str:
    """Return the text of the query `area.verb` in a dialect: `postgres`, or the shared one when empty.

    Raises:
        KeyError: no file of that area holds that name.
    """
    loaded = _loaded.setdefault(dialect, {})
    if name not in loaded:
        _load(loaded, name.partition(".")[0], dialect)
    return loaded[name]


def _load(loaded: dict[str, str], area: str, dialect: str) -> None:
    for folder in (_FOLDER, os.path.join(_FOLDER, dialect)) if dialect else (_FOLDER,):
        path = os.path.join(folder, f"{area}.sql")
        if not os.path.exists(path):
            continue
        with open(path, encoding="utf-8") as file:
            for paragraph in file.read().split("-- name: ")[1:]:
                name, _, text = paragraph.partition("\n")
                loaded[name.strip()] = text.strip()
