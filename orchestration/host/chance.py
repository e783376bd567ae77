"""Chance, by the block: the kernel is asked once for many ids, where a system call for each would cost more than the id."""

from __future__ import annotations

import os
from typing import Final

DIGITS: Final = 20
"""Of one piece: 80 bits."""
_AT_ONCE: Final = 256  # pieces
_pieces: list[str] = []
os.register_at_fork(after_in_child=_pieces.clear)  # a child must not give what its parent gives


def digits() -> str:
    """Return 20 hexadecimal digits that nobody has had before; safe to call in any thread."""
    try:
        return _pieces.pop()
    except IndexError:
        block = os.urandom(_AT_ONCE * DIGITS // 2).hex()
        first, *others = (block[at : at + DIGITS] for at in range(0, len(block), DIGITS))
        _pieces.extend(others)
        return first
