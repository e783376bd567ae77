"""What waking asks of the store, and of a runtime. SQLite and PostgreSQL answer alike; so do all runtimes.

The store's methods raise `Refused(UNAVAILABLE)` when the database can't be had. Leases run by the database's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from orchestration.bridge.state import Session
from orchestration.bridge.wake.state import Attempt, Case, Claim, Code, Outcome, Status, Wake


class WakeStore(Protocol):
    """Triggers, their claims and attempts."""

    async def cases(
        self, *, agents: Iterable[str] | None = None, after: Case | None = None, limit: int = 500
    ) -> tuple[Case, ...]:
        """Return every case to decide on, the oldest first: unread messages in an active thread, or an open trigger.

        Of an agent's open triggers in one thread it shows the first in line; what waits behind it and can be told with it is
        in its prompt, and is a part of it from the claim on.

        Args:
            agents: only these; None for all. after: only what follows on this case, of an earlier answer that had as many
                as asked for. limit: at most so many are looked at.
        """
        ...

    async def case(self, thread_id: str, agent_id: str) -> Case | None:
        """Return one, whether there is anything to decide or not; None when there is no such thread."""
        ...

    async def queue(self, wake: Wake) -> bool:
        """Make a trigger, audited in its thread's chain; False when the case has an open one, and nothing was made."""
        ...

    async def claim(self, trigger_id: str, *, holder: str, lease: timedelta) -> Claim | None:
        """Claim a trigger that is queued, or whose claim has run out, as it was shown last.

        Returns:
            None when somebody else has it, another one of the same case is before it, or it is not what was shown any more:
            the next look tells.
        """
        ...

    async def renew(self, claim: Claim, *, lease: timedelta) -> Claim | None:
        """Prolong a claim; None when it is lost."""
        ...

    async def begin(self, claim: Claim, attempt: Attempt) -> bool:
        """Record an attempt before it is made; False when the claim is lost, and then it must not be made."""
        ...

    async def end(self, claim: Claim, attempt: Attempt) -> bool:
        """Record how an attempt ended; False when the claim is lost.

        A turn that names its session leaves one that can be resumed: it becomes a session of the agent, unmanaged and
        offline, unless it lives in a terminal or was heard of since.
        """
        ...

    async def release(self, claim: Claim, *, due_at: datetime, deferred: bool = False, code: Code | None = None) -> bool:
        """Put a trigger back into the queue, to be looked at from then on; a deferral is counted as one."""
        ...

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
        """End a trigger, audited in its thread's chain; with `bounce`, a system message in the thread, with `words`, one for
        the agent to read, all in one commit."""
        ...

    async def steer(self, trigger_id: str, status: Status, *, actor: str, reason: str, forced: bool = False) -> Wake | None:
        """Cancel or retry a trigger for an operator, audited; None when there is none. Where it stands: no change."""
        ...

    async def hold_session(self, session_id: str, *, holder: str, lease: timedelta) -> int | None:
        """Become the one writer of a runtime's session, or stay it; returns the fence, None when somebody else is."""
        ...

    async def leave_session(self, session_id: str, *, holder: str) -> None:
        """Let go of it."""
        ...

    async def pause(self, workspace_id: str, agent_id: str, *, paused: bool, actor: str) -> bool:
        """Have an agent left alone, or no longer, audited; False when that was so already."""
        ...

    async def paused(self) -> frozenset[tuple[str, str]]:
        """Return who is left alone: workspaces and agents."""
        ...

    async def wakes(
        self, *, thread_id: str | None = None, agent_id: str | None = None, status: Status | None = None, limit: int = 50
    ) -> tuple[Wake, ...]:
        """Return triggers with their attempts, newest first."""
        ...

    async def wake(self, trigger_id: str) -> Wake | None: ...

    async def wait_for_work(self, *, seconds: float) -> bool:
        """Return True as soon as something may have changed, False when the time is up. A hint, never a promise.

        Raises nothing when the database can't be had: then it waits.
        """
        ...


class Liveness(StrEnum):
    """What a runtime says of a session."""

    LIVE = "live"
    DEAD = "dead"
    """Its pane is there and its program has ended."""
    ABSENT = "absent"
    """There is no such pane or session."""
    FOREIGN = "foreign"
    """Something else runs there by now."""
    UNKNOWN = "unknown"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a runtime has found at one moment."""

    liveness: Liveness
    command: str = ""
    """What runs in the foreground there."""
    typed_at: datetime | None = None
    """When a person last pressed a key there."""
    since: datetime | None = None
    """When it was started."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A command that is one turn of an agent; run by the cycle runner, without a shell.

    The prompt takes the place of the word `{prompt}` of the command; where there is none, it is standard input. So it
    stands in no log, manifest or list of commands.
    """

    command: tuple[str, ...]
    prompt: str
    session_id: str = ""
    """Of the runtime: whoever runs the turn holds that session's lock on this host; empty for a new one."""
    working_dir: str = ""
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnTold:
    """What a turn's output says."""

    session_id: str = ""
    failed: str = ""
    """What the runtime says went wrong; empty when nothing did."""
    code: Code | None = None
    """RUNTIME_NOT_FOUND when the runtime knows no such session."""


class WakeFailed(Exception):
    """A runtime could not do it."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


class Runtime(Protocol):
    """One kind of program that agents run in. What it can't do, it refuses by `WakeFailed`."""

    @property
    def name(self) -> str: ...

    async def probe(self, session: Session) -> Probe:
        """Look, and change nothing.

        Raises:
            WakeFailed: it can't be looked at.
        """
        ...

    async def deliver(self, session: Session, prompt: str) -> None:
        """Put a prompt into a live session, once.

        Raises:
            WakeFailed: RUNTIME_UNMANAGED where there is no terminal; PANE_DEAD, RUNTIME_SESSION_MISMATCH, SEND_KEYS_ERROR.
        """
        ...

    async def press(self, session: Session, trigger_id: str) -> None:
        """Send off a prompt that still stands in the input line, told by its trigger's id; puts nothing in, and presses no
        key where it does not stand there.

        Raises:
            WakeFailed: as `deliver`.
        """
        ...

    def turn(self, prompt: str, *, session_id: str = "") -> Turn:
        """Give the command of one turn: of that session, or of a new one.

        Raises:
            WakeFailed: RUNTIME_UNMANAGED: it has none.
        """
        ...

    def told(self, output: Sequence[str]) -> TurnTold:
        """Read the lines that a turn has printed."""
        ...
