"""The life of a thread, as one table, and the authority that each way out of a state takes.

    active ──► blocked, resolved, closed        blocked ──► active
    resolved ──► closed                         blocked ──override──► closed

Nothing leaves `closed`. To ask for the state in which a thread already is succeeds and changes nothing. An override says
who decides in its reason: `human_override:` takes an operator, `coordinator_override:` a coordinator or an operator, and
something has to follow. A block that a loop guard or an operator set is not lifted by those whom it stopped.

Pure. Refuses to know how a thread is kept, and who may touch it at all (`authority.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from orchestration.bridge.caller import Role
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.wire import ThreadStatus


class Way(StrEnum):
    """What a change of status takes."""

    FREE = "free"
    RELEASE = "release"  # a held block needs somebody above the participants
    OVERRIDE = "override"  # a reason that names the authority, and the authority


_S = ThreadStatus

TRANSITIONS: Final[Mapping[tuple[ThreadStatus, ThreadStatus], Way]] = MappingProxyType(
    {
        (_S.ACTIVE, _S.BLOCKED): Way.FREE,
        (_S.ACTIVE, _S.RESOLVED): Way.FREE,
        (_S.ACTIVE, _S.CLOSED): Way.FREE,
        (_S.BLOCKED, _S.ACTIVE): Way.RELEASE,
        (_S.BLOCKED, _S.CLOSED): Way.OVERRIDE,
        (_S.RESOLVED, _S.CLOSED): Way.FREE,
    }
)
OPEN_FOR_POSTS: Final = frozenset({ThreadStatus.ACTIVE, ThreadStatus.BLOCKED})

OVERRIDES: Final[Mapping[str, frozenset[Role]]] = MappingProxyType(
    {
        "human_override:": frozenset({Role.OPERATOR}),
        "coordinator_override:": frozenset({Role.COORDINATOR, Role.OPERATOR}),
    }
)
GUARD_REASON: Final = "loop_guard:"
ESCALATION_REASON: Final = "escalated:"
HELD: Final = (GUARD_REASON, ESCALATION_REASON)
"""A block whose reason begins so is lifted by coordinators and operators only."""
_ABOVE: Final = frozenset({Role.COORDINATOR, Role.OPERATOR})


class Asked(NamedTuple):
    """A change of status as somebody asks for it."""

    status: ThreadStatus
    role: Role
    reason: str = ""
    expected: ThreadStatus | None = None
    """The status from which the change is meant; None when any will do."""


def changes(current: ThreadStatus, current_reason: str, asked: Asked) -> bool:
    """Say whether the thread is to change; False means that it is there already.

    Args:
        current: the status under the thread's lock. current_reason: why it has that status.

    Raises:
        Refused: INVALID_THREAD_TRANSITION, CONFLICT (not the expected status) or INSUFFICIENT_AUTHORITY.
    """
    if asked.status is current:
        return False
    if asked.expected not in (None, current):
        raise Refused(
            Code.CONFLICT,
            f"The thread is {current}, not {asked.expected}: look at it again before you change it.",
            rule="thread.expected",
            details={"status": current.value},
        )
    way = TRANSITIONS.get((current, asked.status))
    if way is None:
        raise _no_way(current, asked.status, "A thread that is closed stays so." if current is _S.CLOSED else "")
    if way is Way.OVERRIDE:
        _check_override(current, asked)
    if way is Way.RELEASE and current_reason.startswith(HELD) and asked.role not in _ABOVE:
        raise Refused(
            Code.INSUFFICIENT_AUTHORITY,
            "A loop guard or a person has blocked this thread: a coordinator or an operator can make it active.",
            rule="thread.held",
        )
    return True


def _check_override(current: ThreadStatus, asked: Asked) -> None:
    for prefix, roles in OVERRIDES.items():
        if asked.reason.startswith(prefix) and asked.reason.removeprefix(prefix).strip():
            if asked.role in roles:
                return
            raise Refused(
                Code.INSUFFICIENT_AUTHORITY,
                f"A reason that starts {prefix} takes the role {' or '.join(sorted(roles))}.",
                rule="thread.override_authority",
            )
    starts = " or ".join(OVERRIDES)
    raise _no_way(current, asked.status, f"Only a reason that starts {starts} and goes on does it.")


def _no_way(current: ThreadStatus, wanted: ThreadStatus, hint: str) -> Refused:
    return Refused(
        Code.INVALID_THREAD_TRANSITION,
        f"A thread can't go from {current} to {wanted}. {hint}".rstrip(),
        rule="thread.transitions",
        details={"from": current.value, "to": wanted.value},
    )


def reason_kept(asked: Asked) -> str:
    """Give the reason as the thread keeps it: a block by a coordinator or operator is marked as one that holds."""
    if asked.status is _S.BLOCKED and asked.role in _ABOVE and not asked.reason.startswith(HELD):
        return f"{ESCALATION_REASON} {asked.reason}".rstrip()
    return asked.reason


def check_open(status: ThreadStatus) -> None:
    """Refuse a post to a thread that is resolved or closed; reading stays allowed."""
    if status not in OPEN_FOR_POSTS:
        raise Refused(
            Code.CONFLICT,
            f"The thread is {status}: it takes no more messages. Open another one.",
            rule="thread.open_for_posts",
            details={"status": status.value},
        )
