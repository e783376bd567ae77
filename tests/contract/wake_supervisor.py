"""A process that takes up triggers and ends them as dead letters, two attempts each: `wake_supervisor.py PLACE NAME`.

Says of each trigger when its end is safe. What the one before it has begun and not ended, it ends as failed, and goes on.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from orchestration.bridge.refusal import Refused
from orchestration.bridge.store.lookups import utc_now
from orchestration.bridge.wake.port import WakeStore
from orchestration.bridge.wake.state import Attempt, Case, Claim, Code, Outcome, Status, Wake
from orchestration.bridge.wake.trigger import OPEN, in_flight, next_number
from tests.contract.waking import attempt, wakes_at

LEASE = timedelta(milliseconds=500)
ATTEMPTS = 2


async def main(place: str, name: str) -> None:
    store = await wakes_at(place)
    while True:
        with suppress(Refused):
            for case in await store.cases(limit=20):
                if case.wake is not None and case.wake.status in OPEN and await ended(store, case, case.wake, name):
                    print(case.wake.trigger_id, flush=True)
        await store.wait_for_work(seconds=0.05)


async def ended(store: WakeStore, case: Case, wake: Wake, name: str) -> bool:
    claim = await store.claim(wake.trigger_id, holder=name, lease=LEASE)
    if claim is None:
        return False
    told = await store.case(case.thread_id, case.agent_id)
    assert told is not None
    assert told.wake is not None
    assert told.wake.trigger_id == wake.trigger_id
    left = in_flight(told.wake)
    if left is not None and not await store.end(claim, failed(left)):
        return False
    for number in range(next_number(told.wake), ATTEMPTS + 1):
        begun = attempt(claim, number, at=utc_now())
        if not await store.begin(claim, begun) or not await store.end(claim, failed(begun)):
            return False
    return await settled(store, claim)


async def settled(store: WakeStore, claim: Claim) -> bool:
    """End it. When the answer is lost, nothing is told of it: it may be written or not."""
    ending = {"status": Status.DEAD_LETTERED, "outcome": Outcome.DEAD_LETTERED, "code": Code.WAKE_FAILED}
    return await store.settle(claim, **ending, bounce="nobody answers")  # type: ignore[arg-type]


def failed(one: Attempt) -> Attempt:
    return replace(one, ended_at=utc_now(), outcome=Outcome.FAILED, code=Code.WAKE_FAILED)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
