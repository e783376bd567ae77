"""The page of figures, `docs/reference/benchmarks.md`: what a benchmark measured goes between two marks of its own."""

from __future__ import annotations

import os
import re

from tests.benchmarks.tick import ROOT

PAGE = os.path.join(ROOT, "docs", "reference", "benchmarks.md")


def write(marks: tuple[str, str], text: str, *, path: str = PAGE) -> None:
    """Put a text in the place of what stands between the marks."""
    with open(path, encoding="utf-8") as file:
        page = file.read()
    between = re.compile(re.escape(marks[0]) + ".*" + re.escape(marks[1]), re.DOTALL)
    if not between.search(page):
        raise ValueError(f"{path} has no place for it: {marks[0]}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(between.sub(lambda _: f"{marks[0]}\n{text}\n{marks[1]}", page))
