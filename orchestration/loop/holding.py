"""The tick's lock, as the loop takes it: if it is free now, for a moment. A tick has it for milliseconds.

Where several hosts share a store, to have the lock of one's own host is not enough to decide: one must lead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from orchestration.errors import LockHeld
from orchestration.scope.lease import Standing, standing

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


@contextmanager
def leading(kernel: Kernel) -> Iterator[bool]:
    """Tell whether this host may decide, under its tick's lock; what it writes then is fenced, and its mirror up to date."""
    if kernel.leading is None or kernel.shared is None:
        yield True
        return
    lease = kernel.leading.look()
    if standing(lease, kernel.leading.here) is not Standing.OURS:
        yield False
        return
    kernel.leading.db.fence(lease.epoch)
    try:
        kernel.shared.look()
        yield True
    finally:
        kernel.leading.db.fence(None)
