"""Which words a text has, for the search: the same on every store, whose own ideas of a word differ."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+")
_LONGEST: Final = 64


def words(text: str) -> list[str]:
    """Return the distinct words of a text: runs of letters and digits, case folded, cut at 64 characters."""
    folded = text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return list(dict.fromkeys(word[:_LONGEST] for word in _WORD.findall(folded)))
