"""The recipes that docs/how-to/continuous-loop.md shows."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/how-to/continuous-loop.md").read_text()


def fenced(language: str) -> str:
    """Return the one block of a language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(block)
