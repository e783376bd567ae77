"""What follows from an observation before any rule is asked: who lives where, and what this trigger has tried. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestration.bridge.state import Session
from orchestration.bridge.wake import observation, trigger
from orchestration.bridge.wake.limits import Limits, Means
from orchestration.bridge.wake.observation import Seen, age, is_fresh, is_managed
from orchestration.bridge.wake.port import Liveness
from orchestration.bridge.wake.state import Attempt, Case, Code, Outcome, Status, Wake, Way
from orchestration.bridge.wire import SessionStatus

_NO_SUCH_SESSION: Final = frozenset({Code.RUNTIME_NOT_FOUND, Code.RUNTIME_SESSION_MISMATCH})
_WRITABLE: Final = frozenset({Liveness.LIVE, Liveness.UNKNOWN})
_NO_MEANS: Final = Means(frozenset())


@dataclass(frozen=True, slots=True)
class Standing:
    """An observation under the limits."""

    seen: Seen
    limits: Limits

    @property
    def case(self) -> Case:
        return self.seen.case

    @property
    def now(self) -> datetime:
        return self.seen.now

    @property
    def means(self) -> Means:
        """What this host can do; nothing where it has no profile."""
        return self.seen.means or _NO_MEANS

    @property
    def wake(self) -> Wake:
        """The open trigger; only rules that have one ask for it."""
        wake = self.case.wake
        if wake is None:
            raise ValueError(f"{self.case.agent_id} has no trigger in {self.case.thread_id}")
        return wake

    @property
    def is_open(self) -> bool:
        """Whether a trigger waits to be carried out."""
        return self.case.wake is not None and self.case.wake.status in trigger.OPEN

    @property
    def is_ours(self) -> bool:
        """Whether we hold its claim."""
        return self.wake.holder == self.seen.holder and self.is_claimed

    @property
    def is_claimed(self) -> bool:
        """Whether somebody holds its claim."""
        lease = self.wake.lease_until
        return self.wake.status is Status.CLAIMED and lease is not None and lease > self.now

    @property
    def flight(self) -> Attempt | None:
        return trigger.in_flight(self.wake)

    def tried(self, *ways: Way) -> tuple[Attempt, ...]:
        """Return the attempts of these ways that count."""
        return tuple(one for one in trigger.counted(self.wake) if one.way in ways)

    @property
    def turn_failed(self) -> bool:
        """Whether a turn was begun for this trigger and did not end well: what it had read may be lost."""
        return any(one.outcome is Outcome.FAILED for one in self.tried(Way.RESUME, Way.SPAWN))

    @property
    def first_deferral(self) -> datetime | None:
        """When a person first kept us waiting."""
        first, renewed = self.wake.deferred_at, self.wake.renewed_at
        return None if first is None or (renewed is not None and first < renewed) else first

    @property
    def has_collided(self) -> bool:
        """Whether the terminal was left to a person who types there; the row says so."""
        renewed = self.wake.renewed_at
        return any(
            one.code is Code.DEFER_TIMEOUT and (renewed is None or one.began_at >= renewed) for one in self.wake.attempts
        )

    @property
    def failures(self) -> tuple[datetime, ...]:
        """The runtime's failures that count, newest first."""
        return tuple(at for at in self.case.failed_at if self.now - at < self.limits.failures_within)

    @property
    def crashes(self) -> bool:
        """Whether the runtime has failed so often that a session may be the reason."""
        return len(self.failures) >= self.limits.failures

    @property
    def terminals(self) -> tuple[Session, ...]:
        """The managed sessions that are said to live, on whatever host."""
        return observation.terminals(self.case, self.limits, self.now)

    @property
    def live(self) -> tuple[Session, ...]:
        """Those of this host whose terminal was found to live."""
        return tuple(one for one in self.terminals if self.liveness(one) is Liveness.LIVE)

    @property
    def elsewhere(self) -> tuple[Session, ...]:
        """Those that are not this host's."""
        return tuple(one for one in self.terminals if one.session_id not in self.seen.probes)

    @property
    def awake(self) -> Session | None:
        """An unmanaged session in which the agent is at work by itself."""
        return next((one for one in self.case.sessions if not is_managed(one) and self._works(one)), None)

    def liveness(self, session: Session) -> Liveness | None:
        """What was found of a session's terminal; None when nobody looked."""
        probe = self.seen.probes.get(session.session_id)
        return probe.liveness if probe else None

    def is_in_use(self, session: Session) -> bool:
        """Say whether a turn of it would be a second writer."""
        if is_managed(session):
            found = self.liveness(session)
            return found in _WRITABLE if found else is_fresh(session, self.limits, self.now)
        return self._works(session)

    def _works(self, session: Session) -> bool:
        return (
            session.status is SessionStatus.ACTIVE
            and is_fresh(session, self.limits, self.now)
            and not self._was_our_turn(session)
        )

    def _was_our_turn(self, session: Session) -> bool:
        """Its last beat came from a turn of ours that has ended since, well or not."""
        return any(
            one.way is not Way.LIVE
            and one.ended_at is not None
            and one.session_id in ("", session.session_id)
            and session.heartbeat_at <= one.ended_at
            for one in (self.case.wake.attempts if self.case.wake else ())
        )

    def resumable(self) -> tuple[Session, ...]:
        """The sessions of which a turn may be run, the latest first, leaving aside how long they have been silent."""
        gone = {one.session_id for one in self.tried(Way.RESUME) if one.code in _NO_SUCH_SESSION}
        return tuple(
            one for one in self.case.sessions if one.resumable and one.session_id not in gone and not self.is_in_use(one)
        )

    def silence(self, session: Session) -> timedelta:
        return age(session, self.now)
