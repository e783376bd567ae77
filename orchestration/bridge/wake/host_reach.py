"""The agents of this host, by the profiles of its settings and the terminals in its state folder. See `reach.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.bridge.wake.limits import Means
from orchestration.bridge.wake.places import Places
from orchestration.bridge.wake.reach import Profile
from orchestration.bridge.wake.runtimes import OfAgent
from orchestration.bridge.wake.runtimes.tmux import Tmux
from orchestration.bridge.wake.state import Way

if TYPE_CHECKING:
    from orchestration.bridge.state import Session
    from orchestration.bridge.wake.port import Runtime
    from orchestration.settings import Agent, Settings


class HostReach:
    """The agents of this host."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._terminals = Tmux(Places(settings.state_dir))

    def profile(self, workspace_id: str, agent_id: str) -> Profile | None:
        """Return how an agent's turns are run here."""
        profile = self._settings.agents.get(agent_id)
        if profile is None or (profile.workspace or self._settings.bridge.workspace) != workspace_id:
            return None
        return Profile(OfAgent(profile, self._terminals), Means(ways(profile), profile.timeout))

    async def terminal(self, session: Session) -> Runtime | None:
        """Return what has this session's terminal."""
        return self._terminals if self._terminals.is_here(session) else None


def ways(profile: Agent) -> frozenset[Way]:
    """Return the ways by which a profile lets its agent be woken."""
    if profile.runtime == "tmux":
        return frozenset({Way.LIVE})
    if profile.runtime == "command" and not profile.resume:
        return frozenset({Way.LIVE, Way.SPAWN})
    return frozenset(Way)
