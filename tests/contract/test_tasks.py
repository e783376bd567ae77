"""Tasks are ended, also those that lose a cancellation."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from orchestration.host import tasks


def test_a_task_that_loses_cancellations_is_ended_nevertheless() -> None:
    lost: list[int] = []

    async def deaf() -> None:
        for number in range(3):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            lost.append(number)

    async def failing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError

    async def ended() -> bool:
        running = [asyncio.create_task(work()) for work in (deaf, failing, asyncio.Event().wait)]
        done = asyncio.create_task(asyncio.sleep(0))
        await asyncio.wait([done])
        await asyncio.wait_for(tasks.end([*running, done]), 20)
        assert isinstance(running[1].exception(), ValueError)
        return all(task.done() for task in running)

    assert asyncio.run(ended())
    assert lost == [0, 1, 2]
