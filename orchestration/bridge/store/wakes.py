"""What a wake store does, as steps: each function asks for one statement after the other, and an adapter carries them out in
one transaction. So SQLite and PostgreSQL do the same, and what is different is in their SQL.

What is written for a claim first finds that the claim holds, in a statement that locks the trigger's row, and is not written
when it does not. What ends, makes or steers a trigger has the thread's row locked before, and its line in the thread's
chain of audit is in the same transaction.

Several open triggers of an agent in one thread are worked on one after the other, and told together where that is possible:
what a look has shown as one prompt is one trigger from its claim on (`shown`), and what came later waits for its turn.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from orchestration.bridge.store.wake_audit import Ending, all_paused, pausing, queued, settled, steered
from orchestration.bridge.store.wake_claims import begun, claimed, ended, released, renewed
from orchestration.bridge.store.wake_looks import Seen, listed, looked, one_looked_at, place_of, shown
from orchestration.bridge.store.wake_sessions import session_held, session_left
from orchestration.bridge.store.wake_steps import Lost, Steps
from orchestration.bridge.wake.state import Attempt, Case, Claim, Code, Outcome, Status, Wake

_Answer = TypeVar("_Answer")


class WakeSteps(ABC):
    """The methods of a `WakeStore` but for waiting; an adapter carries the steps out."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._seen = Seen()
        self._looking = asyncio.Lock()

    @abstractmethod
    async def _done(self, steps: Callable[[], Steps[_Answer]], *, looking: bool = False) -> _Answer:
        """Carry steps out in one transaction; those that only look see one moment.

        Raises:
            Refused: UNAVAILABLE. Lost: nothing was written.
        """

    async def cases(
        self, *, agents: Iterable[str] | None = None, after: Case | None = None, limit: int = 10_000
    ) -> tuple[Case, ...]:
        """Look for what is to be decided on."""
        wanted = None if agents is None else frozenset(agents)
        place = None if after is None else place_of(after)
        async with self._looking:  # what an older moment shows is not to undo what a newer one has
            return await self._done(lambda: looked(self._seen, wanted, place, limit, self._clock()), looking=True)

    async def case(self, thread_id: str, agent_id: str) -> Case | None:
        """Look at one."""
        return await self._done(lambda: one_looked_at(self._seen, thread_id, agent_id), looking=True)

    async def queue(self, wake: Wake) -> bool:
        """Make a trigger."""
        try:
            return await self._done(lambda: queued(wake, self._clock()))
        except Lost:
            return False

    async def claim(self, trigger_id: str, *, holder: str, lease: timedelta) -> Claim | None:
        """Claim one, as it was shown."""
        told = self._seen.shown.get(trigger_id)
        try:
            return await self._done(lambda: claimed(trigger_id, holder, lease, told))
        except Lost:
            return None

    async def renew(self, claim: Claim, *, lease: timedelta) -> Claim | None:
        """Prolong it."""
        return await self._done(lambda: renewed(claim, lease))

    async def begin(self, claim: Claim, attempt: Attempt) -> bool:
        """Write that an attempt begins."""
        return await self._done(lambda: begun(claim, attempt))

    async def end(self, claim: Claim, attempt: Attempt) -> bool:
        """Write that it has ended."""
        return await self._done(lambda: ended(claim, attempt))

    async def release(self, claim: Claim, *, due_at: datetime, deferred: bool = False, code: Code | None = None) -> bool:
        """Give a claim back."""
        deferred_at = self._clock() if deferred else None
        return await self._done(lambda: released(claim, due_at, deferred_at, code))

    async def settle(
        self,
        claim: Claim,
        *,
        status: Status,
        outcome: Outcome,
        code: Code | None = None,
        detail: str = "",
        bounce: str = "",
        words: str = "",
    ) -> bool:
        """End a trigger."""
        end = Ending(status, outcome, code, detail, bounce, words)
        try:
            return await self._done(lambda: settled(claim, end, self._clock()))
        except Lost:
            return False

    async def steer(self, trigger_id: str, status: Status, *, actor: str, reason: str, forced: bool = False) -> Wake | None:
        """Cancel or retry one."""
        try:
            there = await self._done(lambda: steered(trigger_id, status, actor, reason, forced, self._clock()))
        except Lost:
            return None
        return await self.wake(trigger_id) if there else None

    async def hold_session(self, session_id: str, *, holder: str, lease: timedelta) -> int | None:
        """Become the writer of a session."""
        return await self._done(lambda: session_held(session_id, holder, lease))

    async def leave_session(self, session_id: str, *, holder: str) -> None:
        """Let go of it."""
        await self._done(lambda: session_left(session_id, holder))

    async def pause(self, workspace_id: str, agent_id: str, *, paused: bool, actor: str) -> bool:
        """Have an agent left alone."""
        return await self._done(lambda: pausing(workspace_id, agent_id, paused, actor, self._clock()))

    async def paused(self) -> frozenset[tuple[str, str]]:
        """Give who is left alone."""
        return await self._done(all_paused, looking=True)

    async def wakes(
        self, *, thread_id: str | None = None, agent_id: str | None = None, status: Status | None = None, limit: int = 50
    ) -> tuple[Wake, ...]:
        """List triggers."""
        return await self._done(lambda: listed(thread_id, agent_id, status, limit), looking=True)

    async def wake(self, trigger_id: str) -> Wake | None:
        """Give one."""
        return await self._done(lambda: shown(trigger_id), looking=True)
