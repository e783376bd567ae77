"""What a supervisor does next about a case: a closed union, chosen by `policy.decide` and carried out by the driver.

Each one is a single step, small enough that a supervisor may die after it: the next pass decides from what is recorded then.
What writes a trigger or begins an attempt takes the claim first, which is a step of its own (`Claim`). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from orchestration.bridge.state import Session
from orchestration.bridge.wake.state import Attempt, Code, Outcome, Status


class Rule(StrEnum):
    """The rules; `policy.WITHOUT_TRIGGER` and `policy.WITH_TRIGGER` have their order."""

    CLAIM = "claim"
    PROFILE = "profile"
    FLIGHT = "flight"
    THREAD = "thread"
    PARTICIPATION = "participation"
    PAUSE = "pause"
    DUE = "due"
    READ = "read"
    UNREAD = "unread"
    AWAKE = "awake"
    COOLDOWN = "cooldown"
    HEED = "heed"
    COALESCE = "coalesce"
    UNHEEDED = "unheeded"
    RATE = "rate"
    ELSEWHERE = "elsewhere"
    TERMINAL = "terminal"
    RESUME = "resume"
    BRAKE = "brake"
    SPAWN = "spawn"
    DEAD_LETTER = "dead_letter"


class Reason(StrEnum):
    """What a rule found."""

    CLEAR = "clear"
    """Nothing that holds anything up or asks for anything."""
    CLAIMED_ELSEWHERE = "claimed_elsewhere"
    NO_PROFILE = "no_profile"
    ORPHANED = "orphaned"
    ACKNOWLEDGED = "acknowledged"
    ACK_AWAITED = "ack_awaited"
    NOT_ACKNOWLEDGED = "not_acknowledged"
    TURN_RUNS = "turn_runs"
    TURN_DONE = "turn_done"
    TURN_FAILED = "turn_failed"
    THREAD_NOT_ACTIVE = "thread_not_active"
    LEFT_THE_THREAD = "left_the_thread"
    PAUSED = "paused"
    NOT_DUE = "not_due"
    ALREADY_READ = "already_read"
    NOTHING_UNREAD = "nothing_unread"
    ALREADY_ACTIVE = "already_active"
    COOLING_DOWN = "cooling_down"
    TOLD_ALREADY = "told_already"
    GIVEN_UP = "given_up"
    UNREAD_MESSAGES = "unread_messages"
    NEVER_READS = "never_reads"
    RATE_LIMITED = "rate_limited"
    LIVES_ELSEWHERE = "lives_elsewhere"
    LIVE_TERMINAL = "live_terminal"
    NO_ACK_YET = "no_ack_yet"
    OPERATOR_TYPES = "operator_types"
    COLLISION = "collision"
    NO_TERMINAL = "no_terminal"
    TERMINAL_SILENT = "terminal_silent"
    RESUMABLE = "resumable"
    SESSION_HELD = "session_held"
    NOTHING_TO_RESUME = "nothing_to_resume"
    RESUMES_USED_UP = "resumes_used_up"
    SILENT_TOO_LONG = "silent_too_long"
    CRASH_LOOP = "crash_loop"
    BACKING_OFF = "backing_off"
    SPAWNS = "spawns"
    SPAWNS_USED_UP = "spawns_used_up"
    CANNOT_SPAWN = "cannot_spawn"
    EVERY_WAY_TRIED = "every_way_tried"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule saw: the reason for machines, the evidence for people (UTC times)."""

    rule: Rule
    reason: Reason
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Do nothing; a claim that we have is kept, and renewed while it is in flight."""

    until: datetime | None = None
    """When it is worth a look again; None: when something changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Make a trigger, by `trigger.SUPERVISOR`, due at once."""

    reason: str
    """The trigger's."""
    anew: bool = False
    """What was given up before counts no more: there is something new to say, or somewhere new to say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Claim the trigger, read the case again, and decide again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Put the trigger back into the queue."""

    due_at: datetime
    code: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """Put it back because a person types there: counted as a deferral, with a row (outcome `deferred`, this code), and as
    no attempt. With DEFER_TIMEOUT it is the collision: due at once, and then another way is taken."""

    due_at: datetime
    session: Session
    code: Code = Code.OPERATOR_BUSY


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Begin an attempt and put the prompt into this session's terminal."""

    session: Session
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """Begin an attempt that puts nothing in: send off what still stands in the input line (`Runtime.press`)."""

    session: Session
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Begin an attempt and start a turn of this session, once we are its one writer; when somebody else is, decide again
    with its id in `Seen.held`."""

    session: Session
    number: int
    code: Code | None = None
    """Why not the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """Begin an attempt and start the first turn of a new session, with the thread's summary."""

    number: int
    code: Code | None = None
    """Why not the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitAck:
    """Keep the claim, and look for the acknowledgement again by then."""

    attempt: Attempt
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitTurn:
    """Keep the claim, and look after the turn again; by then it is over whatever is heard of it."""

    attempt: Attempt
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Record how an attempt ended (it says so itself), and decide again."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """End the trigger."""

    status: Status
    outcome: Outcome
    code: Code | None = None
    detail: str = ""
    bounce: str = ""
    """A system message for the thread; empty for none."""
    words: str = ""
    """What the agent was to be told, as a message for it alone that wakes it when it has not read it; empty for none."""
    attempt: Attempt | None = None
    """To be recorded first, as it ended."""


Action: TypeAlias = (
    Rest | Queue | Claim | Release | Defer | Deliver | Press | Resume | Spawn | AwaitAck | AwaitTurn | Finish | Settle
)


@dataclass(frozen=True, slots=True)
class Decision:
    """An action with what the rules saw, in the order in which they were asked; the last of them decided."""

    action: Action
    findings: tuple[Finding, ...]

    @property
    def why(self) -> Finding:
        """The finding of the rule that decided."""
        return self.findings[-1]

    @property
    def collided(self) -> bool:
        """Whether this step leaves a terminal because a person types there: told as a collision, once for a trigger."""
        return isinstance(self.action, Defer) and self.action.code is Code.DEFER_TIMEOUT
