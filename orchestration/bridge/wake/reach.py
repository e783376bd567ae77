"""What a supervisor asks of its host: how agents are run there, their turns, and the words they are told. Pure.

The adapters are `host_turns.py`, `runtimes/` and `words` of the composition root; the driver knows these only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

from orchestration.bridge.state import Session
from orchestration.bridge.wake import observation
from orchestration.bridge.wake.limits import Means
from orchestration.bridge.wake.port import Runtime, Turn, TurnTold
from orchestration.bridge.wake.state import Case, Claim, Wake, Way


class Profile(NamedTuple):
    """How this host runs an agent's turns, what that allows, and how long one may take."""

    runtime: Runtime
    means: Means


class Found(NamedTuple):
    """A turn that was looked for, and its cycle where there is one."""

    turn: observation.Turn
    cycle: int | None = None


class Reach(Protocol):
    """The agents of this host."""

    def profile(self, workspace_id: str, agent_id: str) -> Profile | None:
        """Return how an agent's turns are run here; None when they aren't."""
        ...

    async def terminal(self, session: Session) -> Runtime | None:
        """Return what has this session's terminal; None when it is none of this host."""
        ...


class TurnsOfHost(Protocol):
    """Turns of agents as cycles of this host."""

    async def begin(self, turn: Turn, profile: Profile, *, token: str, claim: Claim) -> int:
        """Queue a turn, once for each token and under the claim, have its process started, and return its cycle.

        Raises:
            WakeFailed: the claim holds no more.
            KlorosError: it is not queued, or not started; then it is when it is looked for.
        """
        ...

    async def find(self, token: str, told: Callable[[tuple[str, ...]], TurnTold]) -> Found:
        """Say where the turn of a token stands; one that waits for its process is started."""
        ...

    async def cancel(self, token: str) -> None:
        """Have the turn of a token ended, if there is one."""
        ...


class Words(Protocol):
    """What agents are told."""

    async def prompt(self, case: Case, wake: Wake, way: Way) -> str:
        """Return the prompt; for a new session with the thread's summary."""
        ...


def name(node: str, place: str, *, process: str) -> str:
    """Name a supervisor, so that no two are ever called the same: host and state folder, then the process.

    Args:
        node: host name. place: what tells this state folder from others, on whatever host. process: what tells this process
            from others there, now and ever.
    """
    return f"{node}.{hashlib.sha256(place.encode()).hexdigest()[:8]}:{process}"


def place_of(holder: str) -> str:
    """Return the part of a supervisor's name that stays when another one takes its place on the same host."""
    return holder.rpartition(":")[0]


def token_of(wake: Wake, number: int) -> str:
    """Return the token of the turn of an attempt: the same for whoever looks for it."""
    return f"{wake.trigger_id}-{number}"
