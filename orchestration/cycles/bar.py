"""The bar that shows how far a large bundle has come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WORTH_A_BAR = 100 * 1000 * 1000
"""Bytes; less is done before anybody asks."""


@contextmanager
def bar(label: str, expected: int) -> Iterator[Callable[[int], None] | None]:
    """Show on stderr how far it has come, on a terminal and where it takes a while; `expected` bytes, more or fewer."""
    if expected < WORTH_A_BAR or not sys.stderr.isatty():
        yield None
        return
    import click

    with click.progressbar(length=expected, label=label, file=sys.stderr) as shown:
        yield shown.update
