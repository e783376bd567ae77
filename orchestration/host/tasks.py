"""Ending tasks of asyncio for sure.

Up to Python 3.11 `asyncio.wait_for` loses a cancellation that arrives together with what it waited for
(https://github.com/python/cpython/issues/86296); psycopg and its pool wait by it. Who then waits for the end of the task
waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

_AGAIN: Final = 0.2


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended; how they end is nobody's business any more."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN)
