"""Turns for the driver: `turns.py`, which is short and blocks, in a thread of its own, with what its cycles say in the words
that the rules know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from orchestration.bridge.wake.observation import Turn as TurnSeen
from orchestration.bridge.wake.observation import Turned
from orchestration.bridge.wake.port import Turn, TurnTold
from orchestration.bridge.wake.reach import Found, Profile
from orchestration.bridge.wake.state import Claim
from orchestration.bridge.wake.turns import Standing, Turns
from orchestration.cycles.cycle import CycleState
from orchestration.store.port import Database

_T = TypeVar("_T")


class HostTurns:
    """The turns of this host."""

    def __init__(
        self, opened: Callable[[], Database], over: Callable[[Database], Turns], *, only_looks: bool = False
    ) -> None:
        """Take how the host's store is opened, in the one thread that uses it, when it is needed; and the turns over it.

        Args:
            only_looks: nothing is started, and nothing recorded.
        """
        self._only_looks = only_looks
        self._opened = opened
        self._over = over
        self._db: Database | None = None
        self._turns: Turns | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="turns")

    async def begin(self, turn: Turn, profile: Profile, *, token: str, claim: Claim) -> int:
        """Queue and start it. See `TurnsOfHost`."""

        def work(turns: Turns) -> int:
            cycle = turns.enqueue(turn, token=token, timeout=profile.means.turn_timeout, claim=claim)
            turns.start(cycle)
            return int(cycle)

        return await self._do(work)

    async def find(self, token: str, told: Callable[[tuple[str, ...]], TurnTold]) -> Found:
        """Look for it; what waits for its process, because its supervisor died before, is started. See `TurnsOfHost`."""

        def work(turns: Turns) -> Found:
            found = turns.look(token)
            if found is not None and not found.ended and not found.runs and not self._only_looks:
                if found.state is CycleState.QUEUED:
                    turns.start(found.cycle)
                else:
                    turns.end_lost()
                    found = turns.look(token)
            return Found(seen(found, told), None if found is None else int(found.cycle))

        return await self._do(work)

    async def cancel(self, token: str) -> None:
        """Have it ended."""

        def work(turns: Turns) -> None:
            found = turns.look(token)
            if found is not None and not found.ended:
                turns.cancel(found.cycle)

        await self._do(work)

    async def close(self) -> None:
        """Let go of the store."""
        if self._db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[Turns], _T]) -> _T:
        def done() -> _T:
            if self._db is None:
                self._db = self._opened()
                self._turns = self._over(self._db)
            assert self._turns is not None
            return work(self._turns)

        return await asyncio.get_running_loop().run_in_executor(self._thread, done)


def seen(found: Standing | None, told: Callable[[tuple[str, ...]], TurnTold]) -> TurnSeen:
    """Say it in the words of the rules."""
    if found is None:
        return TurnSeen(turned=Turned.UNSTARTED)
    said = told(found.output)
    reason = "" if found.result is None else found.result.reason
    if not found.ended:
        return TurnSeen(turned=Turned.RUNNING, session_id=said.session_id)
    if found.state is CycleState.LOST:
        return TurnSeen(turned=Turned.LOST, session_id=said.session_id, detail=_of_cycle(found, reason))
    if found.state is CycleState.SUCCEEDED and not said.failed:
        return TurnSeen(turned=Turned.SUCCEEDED, session_id=said.session_id, detail=_of_cycle(found, reason))
    failed = "; ".join(part for part in (said.failed, reason) if part)
    return TurnSeen(turned=Turned.FAILED, session_id=said.session_id, code=said.code, detail=_of_cycle(found, failed))


def _of_cycle(found: Standing, detail: str) -> str:
    detail = " ".join(detail.split())  # a cycle's reason may have a second line, of what to do
    return f"cycle {found.cycle}: {detail}" if detail else f"cycle {found.cycle}"
