"""The rule for an attempt after which its trigger was not ended: whoever lives now takes it up as it stands. Pure.

What was put into a terminal is acknowledged or not, and never put in again; a turn is found by its token and waited for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from orchestration.bridge.wake.action import Action, AwaitAck, AwaitTurn, Finding, Finish, Reason, Rule, Settle
from orchestration.bridge.wake.limits import Means
from orchestration.bridge.wake.observation import Turn, Turned
from orchestration.bridge.wake.standing import Standing
from orchestration.bridge.wake.state import Attempt, Code, Outcome, Status, Way
from orchestration.bridge.wake.words import span, utc
from orchestration.bridge.wire import SessionStatus

_UNHEARD_OF: Final = Turn(turned=Turned.UNKNOWN)
_WOKEN: Final = {Way.RESUME: Outcome.FALLBACK_RESUMED, Way.SPAWN: Outcome.FALLBACK_SPAWNED}
_ENDED_WELL: Final = frozenset({Outcome.TRIGGERED, *_WOKEN.values()})
_WORDS: Final = {
    Turned.FAILED: "the turn failed",
    Turned.LOST: "the turn was lost: its runner is gone",
    Turned.UNSTARTED: "the turn was never started: its supervisor was gone before",
    Turned.UNKNOWN: "nothing was heard of the turn, which another host began, in the time that it had",
}


def attempt(at: Standing) -> tuple[Finding, Action | None]:
    """See an attempt in flight to its end before anything else is done."""
    flight = at.flight
    if flight is None:
        return _woken(at)
    return _live(at, flight) if flight.way is Way.LIVE else _turn(at, flight)


def _woken(at: Standing) -> tuple[Finding, Action | None]:
    """End a trigger whose agent was woken: the supervisor that wrote the attempt's end was gone before the trigger's."""
    for one in at.tried(*Way):
        if one.outcome in _ENDED_WELL:
            evidence = f"attempt {one.number} ({one.way}) has woken it, and the trigger's end was not written"
            reason = Reason.ACKNOWLEDGED if one.way is Way.LIVE else Reason.TURN_DONE
            return Finding(Rule.FLIGHT, reason, evidence), Settle(status=Status.DONE, outcome=one.outcome, detail=evidence)
    return Finding(Rule.FLIGHT, Reason.CLEAR, "no attempt is in flight"), None


def _live(at: Standing, flight: Attempt) -> tuple[Finding, Action]:
    if told := _acknowledged(at, flight):
        ended = replace(flight, ended_at=at.now, outcome=Outcome.TRIGGERED, detail=told)
        settled = Settle(status=Status.DONE, outcome=Outcome.TRIGGERED, detail=told, attempt=ended)
        return Finding(Rule.FLIGHT, Reason.ACKNOWLEDGED, told), settled
    until = flight.began_at + at.limits.ack_within
    if at.now < until:
        evidence = f"attempt {flight.number} put the prompt into {flight.session_id}; acknowledged until {utc(until)} or not"
        return Finding(Rule.FLIGHT, Reason.ACK_AWAITED, evidence), AwaitAck(attempt=flight, until=until)
    evidence = f"attempt {flight.number} was not acknowledged within {span(at.limits.ack_within)}"
    return Finding(Rule.FLIGHT, Reason.NOT_ACKNOWLEDGED, evidence), _failed(at, flight, Code.WAKE_FAILED, evidence)


def _acknowledged(at: Standing, flight: Attempt) -> str:
    """Say by what, or nothing. A beat counts when it says ACTIVE: IDLE ones come from whoever watches over the terminal."""
    if at.case.cursor > flight.cursor:
        return f"its cursor went from {flight.cursor} to {at.case.cursor}"
    for session in at.case.sessions:
        if session.status is SessionStatus.ACTIVE and session.heartbeat_at > flight.began_at:
            return f"its session {session.session_id} said at {utc(session.heartbeat_at)} that it is active"
    return ""


def _turn(at: Standing, flight: Attempt) -> tuple[Finding, Action]:
    turn = at.seen.turn or _UNHEARD_OF
    until = flight.began_at + (at.seen.means or Means()).turn_timeout + at.limits.lease
    known = replace(flight, session_id=flight.session_id or turn.session_id)
    if turn.turned is Turned.RUNNING or (turn.turned is Turned.UNKNOWN and at.now < until):
        evidence = f"attempt {flight.number}, a turn ({flight.way}), runs since {utc(flight.began_at)}"
        return Finding(Rule.FLIGHT, Reason.TURN_RUNS, evidence), AwaitTurn(attempt=known, until=until)
    if turn.turned is Turned.SUCCEEDED:
        evidence = f"attempt {flight.number}, a turn ({flight.way}), ended well"
        outcome = _WOKEN[flight.way]
        if _elsewhere(flight, turn):  # it has worked on our prompt all the same: not again, but from there the next time
            known = replace(known, session_id=turn.session_id, code=Code.RUNTIME_SESSION_MISMATCH)
        detail = "; ".join(part for part in (turn.detail, _elsewhere(flight, turn)) if part)
        ended = replace(known, ended_at=at.now, outcome=outcome, detail=detail)
        settled = Settle(status=Status.DONE, outcome=outcome, detail=evidence, attempt=ended)
        return Finding(Rule.FLIGHT, Reason.TURN_DONE, evidence), settled
    said = "; ".join(part for part in (_WORDS[turn.turned], _elsewhere(flight, turn)) if part)
    said += f": {turn.detail}" if turn.detail else ""
    finding = Finding(Rule.FLIGHT, Reason.TURN_FAILED, f"attempt {flight.number} ({flight.way}): {said}")
    mismatch = Code.RUNTIME_SESSION_MISMATCH if _elsewhere(flight, turn) else Code.WAKE_FAILED
    return finding, _failed(at, known, turn.code or mismatch, said)


def _elsewhere(flight: Attempt, turn: Turn) -> str:
    """Say which other session the runtime went on with than the one that was to be resumed, or nothing."""
    if not flight.session_id or turn.session_id in ("", flight.session_id):
        return ""
    return f"the runtime went on as session {turn.session_id}, and not as {flight.session_id}"


def _failed(at: Standing, flight: Attempt, code: Code, detail: str) -> Finish:
    return Finish(attempt=replace(flight, ended_at=at.now, outcome=Outcome.FAILED, code=code, detail=detail))
