"""Looks at one case through a host's eyes: its terminals, and the turn of an attempt in flight. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from orchestration.bridge.state import Session
from orchestration.bridge.wake import observation, trigger
from orchestration.bridge.wake.limits import IN_ITS_TERMINAL, Limits, Means
from orchestration.bridge.wake.port import Liveness, Probe, TurnTold, WakeFailed
from orchestration.bridge.wake.reach import Found, Reach, place_of, token_of
from orchestration.bridge.wake.state import Attempt, Case

_SECONDS: Final = 5.0
_NOBODY_TELLS: Final = Found(observation.Turn(turned=observation.Turned.UNKNOWN))


class FindTurn(Protocol):
    """Says where the turn of a token stands."""

    async def find(self, token: str, told: Callable[[tuple[str, ...]], TurnTold]) -> Found: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen, and the cycle of the turn in flight where it is one of this host."""

    seen: observation.Seen
    cycle: int | None = None


class Looking:
    """The eyes of one host."""

    def __init__(self, reach: Reach, turns: FindTurn, *, here: str, limits: Limits, now: Callable[[], datetime]) -> None:
        """Take what can be looked at. `here`: a supervisor's name of this host, or whoever looks as one."""
        self._reach = reach
        self._turns = turns
        self._here = here
        self._limits = limits
        self._now = now

    async def look(self, case: Case, *, holder: str, held: frozenset[str] = frozenset()) -> Look:
        """Observe a case.

        Args:
            holder: who is to decide. held: sessions that somebody else was found to write to.
        """
        probes = await self._probes(case)
        profile = self._reach.profile(case.workspace_id, case.agent_id)
        means = profile.means if profile else await self._in_its_terminal(case)
        found = await self._turn_of(case) if observation.turn_to_find(case) else None
        seen = observation.Seen(
            case=case,
            holder=holder,
            now=self._now(),
            means=means,
            probes=probes,
            turn=None if found is None else found.turn,
            held=held,
        )
        return Look(seen=seen, cycle=None if found is None else found.cycle)

    async def _in_its_terminal(self, case: Case) -> Means | None:
        """Say what can be done for an agent without a profile: it may live in a terminal of this host."""
        for session in observation.terminals(case, self._limits, self._now()):
            if await self._reach.terminal(session) is not None:
                return IN_ITS_TERMINAL
        return None

    async def _probes(self, case: Case) -> Mapping[str, Probe]:
        asked = observation.to_probe(case, self._limits, self._now())
        found = await asyncio.gather(*map(self._probe, asked))
        return {session.session_id: probe for session, probe in zip(asked, found, strict=True) if probe is not None}

    async def _probe(self, session: Session) -> Probe | None:
        try:
            async with asyncio.timeout(_SECONDS):
                terminal = await self._reach.terminal(session)
                return None if terminal is None else await terminal.probe(session)
        except WakeFailed as error:
            return Probe(liveness=Liveness.UNKNOWN, detail=str(error))
        except TimeoutError:
            return Probe(liveness=Liveness.UNKNOWN, detail=f"no answer within {_SECONDS:.0f} s")

    async def _turn_of(self, case: Case) -> Found:
        wake = case.wake
        attempt: Attempt | None = None if wake is None else trigger.in_flight(wake)
        if wake is None or attempt is None or place_of(attempt.holder) != place_of(self._here):
            return _NOBODY_TELLS
        profile = self._reach.profile(case.workspace_id, case.agent_id)
        told = profile.runtime.told if profile else lambda _: TurnTold()
        return await self._turns.find(token_of(wake, attempt.number), told)
