"""Loads the named SQL of this folder: one file an area, read on the first query of that area."""

from __future__ import annotations

import os

_FOLDER = os.path.dirname(__file__)
_loaded: dict[str, str] = {}


def sql(name: str) -> str:
    """Return the text of the query `area.verb`.

    Raises:
        KeyError: no file of that area holds that name.
    """
    if name not in _loaded:
        _load(name.partition(".")[0])
    return _loaded[name]


def _load(area: str) -> None:
    with open(os.path.join(_FOLDER, f"{area}.sql"), encoding="utf-8") as file:
        for paragraph in file.read().split("-- name: ")[1:]:
            name, _, text = paragraph.partition("\n")
            _loaded[name.strip()] = text.strip()
