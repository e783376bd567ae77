"""The tick's lock, as the loop takes it: if it is free now, for a moment. A tick has it for milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from orchestration.errors import LockHeld

if TYPE_CHECKING:
    from orchestration.tick.kernel import Kernel


@contextmanager
def holding(kernel: Kernel) -> Iterator[bool]:
    """Hold the tick's lock and give True, or give False when a tick has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(kernel.lock.held("loop"))
        except LockHeld:
            yield False
            return
        yield True
