"""The claims of one supervisor on triggers, with their ends by its own clock, and the sessions that their turns write to.

A claim is renewed for as long as it is held, beside whatever is done under it. What is not renewed in time is not acted
on: the clock here also runs while this process, or its host, stands still.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from orchestration.bridge.refusal import Refused
from orchestration.bridge.wake import trigger
from orchestration.bridge.wake.port import WakeStore
from orchestration.bridge.wake.state import Case, Claim, Status, Wake
from orchestration.host.journal import Event, Priority, log

_MARGIN: Final = 2.0
"""Seconds that a claim must have left for an act under it; of a short one a quarter."""


def boottime() -> float:
    """Return seconds by a clock that nobody sets, and that runs also while the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class _Held:
    claim: Claim
    ends: float
    session_id: str = ""


class Claims:
    """What a supervisor has claimed."""

    def __init__(
        self,
        store: WakeStore,
        *,
        holder: str,
        lease: timedelta,
        clock: Callable[[], float],
        given_up: Callable[[Wake], Awaitable[None]],
    ) -> None:
        """Take the store, and what the supervisor calls itself.

        Args:
            clock: see `boottime`.
            given_up: told of a trigger that somebody has ended while it was ours.
        """
        self._store = store
        self._holder = holder
        self._lease = lease
        self._clock = clock
        self._margin = min(_MARGIN, lease.total_seconds() / 4)
        self._given_up = given_up
        self._held: dict[str, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    async def take(self, wake: Wake) -> bool:
        """Claim a trigger; False when somebody else has it."""
        asked = self._clock()
        claim = await self._store.claim(wake.trigger_id, holder=self._holder, lease=self._lease)
        if claim is None:
            self.forget(wake)
            return False
        self._held[wake.trigger_id] = _Held(claim, asked + self._lease.total_seconds())
        return True

    def of(self, wake: Wake) -> Claim | None:
        """Return our claim, however long it holds: to record something under it."""
        held = self._held.get(wake.trigger_id)
        return None if held is None else held.claim

    def to_act(self, wake: Wake) -> Claim | None:
        """Return our claim when it holds for long enough to do something under it."""
        held = self._held.get(wake.trigger_id)
        return held.claim if held is not None and self._clock() < held.ends - self._margin else None

    def seen(self, case: Case, now: datetime) -> Case:
        """Put what we know of a claim of ours into a case: its end by the database's clock says little by the host's."""
        wake, held = case.wake, None if case.wake is None else self._held.get(case.wake.trigger_id)
        if wake is None or held is None or wake.status is not Status.CLAIMED or wake.fence != held.claim.fence:
            return case
        return replace(case, wake=replace(wake, lease_until=now + timedelta(seconds=held.ends - self._clock())))

    def forget(self, wake: Wake) -> None:
        """Do without a claim that was found to be lost."""
        self._held.pop(wake.trigger_id, None)

    async def hold_session(self, session_id: str) -> bool:
        """Become the one who writes to a session."""
        return await self._store.hold_session(session_id, holder=self._holder, lease=self._lease) is not None

    def keep_session(self, wake: Wake, session_id: str) -> None:
        """Renew our hold on a session together with the claim."""
        held = self._held.get(wake.trigger_id)
        if held is not None:
            held.session_id = session_id

    async def leave_session(self, wake: Wake) -> None:
        """Let others write to the session, if there was one."""
        held = self._held.get(wake.trigger_id)
        if held is not None:
            await self._leave(held)

    async def let_go(self, wake: Wake, write: Callable[[Claim], Awaitable[bool]]) -> bool:
        """Do the last thing under a claim; False when it was lost before."""
        held = self._held.get(wake.trigger_id)
        if held is None:
            return False
        done = await write(held.claim)
        self.forget(wake)
        await self._leave(held)
        return done

    async def keep(self) -> None:
        """Renew what is held. Without end, beside the passes."""
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            await asyncio.gather(*(self.renew(trigger_id) for trigger_id in list(self._held)))

    async def renew(self, trigger_id: str) -> None:
        """Prolong one claim, and our hold on its turn's session. A store out of reach is asked again in a moment."""
        held = self._held.get(trigger_id)
        if held is None:
            return
        asked = self._clock()
        with suppress(Refused):
            claim = await self._store.renew(held.claim, lease=self._lease)
            if claim is not None:
                held.claim, held.ends = claim, asked + self._lease.total_seconds()
                if held.session_id:
                    await self.hold_session(held.session_id)
            elif self._held.get(trigger_id) is held:
                await self._lose(trigger_id, held)

    async def give_back(self, *, due_at: datetime) -> None:
        """Put everything back into the queue. The turns go on, and so does our hold on their sessions until it runs out."""
        for trigger_id in list(self._held):
            held = self._held.pop(trigger_id)
            with suppress(Refused):  # its lease ends by itself
                await self._store.release(held.claim, due_at=due_at)

    async def _lose(self, trigger_id: str, held: _Held) -> None:
        """Do without a claim that is another's by now, or that was ended by a person."""
        del self._held[trigger_id]
        log(Event.WAKE_ENDED, f"the claim on {trigger_id} is ours no more", priority=Priority.NOTICE, trigger_id=trigger_id)
        wake = await self._store.wake(trigger_id)
        if wake is not None and wake.status not in trigger.OPEN:
            await self._given_up(wake)
            await self._leave(held)

    async def _leave(self, held: _Held) -> None:
        if held.session_id:
            await self._store.leave_session(held.session_id, holder=self._holder)
            held.session_id = ""
