"""Who may do what: one table of methods × standing, where a standing is a role and its place in the thread.

An identity of another workspace never gets as far as this table: what it names does not exist for it. An auditor reads
everything in its workspace and changes nothing, in whatever thread it may be listed. A participant touches the threads
it takes part in, a coordinator every thread of its workspace, an operator every thread there is.

Pure. What a payload says of its own sender is held against the verified identity here as well (`check_claim`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.refusal import Code, Refused


class Standing(StrEnum):
    """Who somebody is to a thread. Methods without a thread know no CREATOR, and every participant is a MEMBER."""

    CREATOR = "creator"  # a participant of the thread, who opened it
    MEMBER = "member"  # a participant of the thread
    STRANGER = "stranger"  # a participant of the workspace, not of the thread
    COORDINATOR = "coordinator"
    AUDITOR = "auditor"
    OPERATOR = "operator"


class Leave(StrEnum):
    """What a standing gets of a method."""

    YES = "yes"
    SELF = "self"  # only where it is itself the one concerned
    FORBIDDEN = "forbidden"  # not its thread
    INSUFFICIENT = "insufficient"  # not for its role


_ORDER: Final = (
    Standing.CREATOR,
    Standing.MEMBER,
    Standing.STRANGER,
    Standing.COORDINATOR,
    Standing.AUDITOR,
    Standing.OPERATOR,
)
_Y, _S, _F, _I = Leave.YES, Leave.SELF, Leave.FORBIDDEN, Leave.INSUFFICIENT

_TABLE: Final = {
    #                       creator member stranger coordinator auditor operator
    "create_thread":        (_Y,    _Y,    _Y,      _Y,         _I,     _Y),
    "get_thread":           (_Y,    _Y,    _F,      _Y,         _Y,     _Y),
    "update_thread_status": (_Y,    _Y,    _F,      _Y,         _I,     _Y),
    "summarize_thread":     (_Y,    _Y,    _F,      _Y,         _Y,     _Y),
    "post_message":         (_Y,    _Y,    _F,      _Y,         _I,     _Y),
    "read_messages":        (_Y,    _Y,    _F,      _Y,         _Y,     _Y),
    "ack_read":             (_Y,    _Y,    _F,      _Y,         _I,     _Y),
    "heartbeat_session":    (_Y,    _Y,    _Y,      _Y,         _I,     _Y),
    "trigger_participant":  (_Y,    _Y,    _F,      _Y,         _I,     _Y),
    "list_threads":         (_Y,    _Y,    _Y,      _Y,         _Y,     _Y),
    "list_participants":    (_Y,    _Y,    _F,      _Y,         _Y,     _Y),
    "add_participant":      (_Y,    _I,    _F,      _Y,         _I,     _Y),
    "remove_participant":   (_Y,    _S,    _F,      _Y,         _I,     _Y),
    "search_messages":      (_Y,    _Y,    _F,      _Y,         _Y,     _Y),
    "get_audit":            (_I,    _I,    _I,      _I,         _Y,     _Y),
}  # fmt: skip

MATRIX: Final[Mapping[tuple[str, Standing], Leave]] = MappingProxyType(
    {(method, standing): leave for method, row in _TABLE.items() for standing, leave in zip(_ORDER, row, strict=True)}
)
SEES_ALL: Final = frozenset({Role.COORDINATOR, Role.AUDITOR, Role.OPERATOR})
"""Roles that read every thread of their workspace, and messages that are meant for others."""
SPEAKS_FOR_THE_SYSTEM: Final = frozenset({Role.COORDINATOR, Role.OPERATOR})


def standing(caller: Caller, *, takes_part: bool, created_by: str = "") -> Standing:
    """Place a caller: by its role, and as a participant by its place in the thread."""
    if caller.role is not Role.PARTICIPANT:
        return Standing(caller.role.value)
    if not takes_part:
        return Standing.STRANGER
    return Standing.CREATOR if caller.agent_id == created_by else Standing.MEMBER


def check(method: str, caller: Caller, at: Standing, *, concerns: str = "") -> None:
    """Let a method pass, or refuse it.

    Args:
        concerns: the agent whom it is about, where that is somebody.

    Raises:
        Refused: FORBIDDEN (not in this thread) or INSUFFICIENT_AUTHORITY (not with this role).
    """
    leave = MATRIX[method, at]
    if leave is Leave.YES or (leave is Leave.SELF and concerns == caller.agent_id):
        return
    if leave is Leave.FORBIDDEN:
        raise Refused(
            Code.FORBIDDEN,
            "You do not take part in this thread. A coordinator, or who opened it, can add you.",
            rule=f"authority.{method}.{at}",
        )
    raise Refused(
        Code.INSUFFICIENT_AUTHORITY,
        f"{method} takes {' or '.join(_takers(method))}; you ask as {caller.role}.",
        rule=f"authority.{method}.{at}",
    )


def _takers(method: str) -> Iterator[str]:
    if MATRIX[method, Standing.MEMBER] is Leave.YES:
        yield Role.PARTICIPANT
    elif MATRIX[method, Standing.CREATOR] is Leave.YES:
        yield "who opened the thread"
    if MATRIX[method, Standing.MEMBER] is Leave.SELF:
        yield "the agent itself"
    above = (Standing.COORDINATOR, Standing.AUDITOR, Standing.OPERATOR)
    yield from (one for one in above if MATRIX[method, one] is Leave.YES)


def check_claim(caller: Caller, *, agent_id: str | None) -> None:
    """Refuse a payload that says it comes from somebody else than the verified identity."""
    if agent_id not in (None, caller.agent_id):
        raise Refused(
            Code.CLAIM_MISMATCH,
            "The agent named in the request is not the one that signed in.",
            rule="authority.claim",
        )


def check_workspace(caller: Caller, *, workspace_id: str | None) -> None:
    """Refuse to open, list or heartbeat in another workspace than one's own."""
    if workspace_id not in (None, caller.workspace_id):
        raise Refused(
            Code.WORKSPACE_MISMATCH,
            "The workspace named in the request is not the one that you signed in to.",
            rule="authority.workspace",
        )


def not_found(what: str, *, foreign: bool = False) -> Refused:
    """Say that there is no such thing; to the caller, another workspace's answers in the very same words.

    Args:
        what: `thread`, `message`, … foreign: it exists elsewhere: only the rule, for the audit, says so.
    """
    return Refused(Code.NOT_FOUND, f"There is no such {what}.", rule="workspace.fence" if foreign else f"{what}.exists")
