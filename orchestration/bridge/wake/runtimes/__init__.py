"""The runtimes that agents live in: what runs their turns, and the terminal that a live one is told in.

Owns which adapter a profile of `[agents.<name>]` means. A runtime of an agent is two halves: turns are its profile's,
a terminal is tmux's, whatever runs in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestration.bridge.wake.runtimes.codex import Codex
from orchestration.bridge.wake.runtimes.command import Claude, Command
from orchestration.bridge.wake.runtimes.tmux import Tmux

if TYPE_CHECKING:
    from orchestration.bridge.state import Session
    from orchestration.bridge.wake.port import Probe, Runtime, Turn, TurnTold
    from orchestration.settings import Agent


def turns_of(profile: Agent) -> Runtime | None:
    """Return what runs a profile's turns; None for one that is woken in its terminal alone."""
    match profile.runtime:
        case "codex":
            return Codex(profile)
        case "claude":
            return Claude(profile)
        case "command":
            return Command(profile)
        case "tmux":
            return None


class OfAgent:
    """The runtime of one agent of this host; a `Runtime`."""

    def __init__(self, profile: Agent | None, terminal: Tmux) -> None:
        """Take its profile, None for an agent that only has a terminal here, and the terminals of this host."""
        self._turns: Runtime = (profile and turns_of(profile)) or terminal
        self._terminal = terminal

    @property
    def name(self) -> str:
        return self._turns.name

    async def probe(self, session: Session) -> Probe:
        return await self._terminal.probe(session)

    async def deliver(self, session: Session, prompt: str) -> None:
        await self._terminal.deliver(session, prompt)

    async def press(self, session: Session, trigger_id: str) -> None:
        await self._terminal.press(session, trigger_id)

    def turn(self, prompt: str, *, session_id: str = "") -> Turn:
        return self._turns.turn(prompt, session_id=session_id)

    def told(self, output: Sequence[str]) -> TurnTold:
        return self._turns.told(output)
