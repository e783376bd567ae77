"""Looks at all threads again and again, for metrics, health and the page. One task beside the requests of a bridge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from orchestration.bridge.census import Census, Tally
from orchestration.bridge.refusal import Refused
from orchestration.host import clock

if TYPE_CHECKING:
    from orchestration.bridge.http.threads_measured import ThreadsMeasured
    from orchestration.bridge.port import Store

INTERVAL: Final = 5.0
"""Seconds between two looks."""
_SHARE: Final = 20
"""A look is followed by a pause of so many times what it took: many threads are looked at less often."""
Tell = Callable[[Census], Awaitable[None]]


async def watch(store: Store, tally: Tally, measured: ThreadsMeasured, tell: Tell, *, interval: float = INTERVAL) -> None:
    """Look without end; what the store does not answer is asked again at the next look."""
    while True:
        began = clock.monotonic()
        try:
            await store.count(tally)
            census = await store.census(clock.now())
        except Refused:
            measured.failed_looks += 1
        else:
            measured.census = census
            await tell(census)
        await asyncio.sleep(max(interval, (clock.monotonic() - began) * _SHARE))
