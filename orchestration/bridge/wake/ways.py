"""The rules that choose a way to wake: the terminal, a turn of an earlier session, a new session, or none any more. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from orchestration.bridge.state import Session
from orchestration.bridge.wake import trigger
from orchestration.bridge.wake.action import (
    Action,
    Defer,
    Deliver,
    Finding,
    Press,
    Reason,
    Release,
    Rest,
    Resume,
    Rule,
    Settle,
    Spawn,
)
from orchestration.bridge.wake.observation import is_managed
from orchestration.bridge.wake.port import Liveness
from orchestration.bridge.wake.standing import Standing
from orchestration.bridge.wake.state import Attempt, Code, Outcome, Status, Way
from orchestration.bridge.wake.words import count, span, utc
from orchestration.cycles.backoff import Failures

Verdict: TypeAlias = tuple[Finding, Action | None]

MINUTE: Final = timedelta(minutes=1)
_FOUND: Final = {
    Liveness.DEAD: (Code.PANE_DEAD, "its program has ended"),
    Liveness.FOREIGN: (Code.RUNTIME_SESSION_MISMATCH, "something else runs there by now"),
    Liveness.ABSENT: (Code.RUNTIME_OFFLINE, "it is not there"),
    Liveness.UNKNOWN: (Code.RUNTIME_OFFLINE, "it could not be looked at"),
}
"""Why a managed session that beats is not written to."""
_STAYED_OUT: Final = frozenset({Code.PANE_DEAD, Code.RUNTIME_SESSION_MISMATCH, Code.RUNTIME_UNMANAGED, Code.RUNTIME_OFFLINE})
"""Codes of a delivery of which nothing went in, so that there is nothing to press."""


def elsewhere(at: Standing) -> Verdict:
    """A terminal on another host is that host's to write to, as long as it may still do it."""
    clear = Finding(Rule.ELSEWHERE, Reason.CLEAR, "no other host has a terminal of the agent")
    until = max(at.wake.due_at, at.wake.renewed_at or at.wake.created_at) + at.limits.orphaned_after
    if not at.elsewhere or at.live or _terminal_is_used_up(at) or at.now >= until:
        return clear, None
    evidence = f"its session {at.elsewhere[0].session_id} lives in a terminal of another host"
    return Finding(Rule.ELSEWHERE, Reason.LIVES_ELSEWHERE, evidence), Rest(until=until)


def terminal(at: Standing) -> Verdict:
    """Managed, live, fresh: told there. A person who types is waited for; what is not acknowledged is looked at again."""
    session = _addressed(at)
    if session is None:
        code, words = why_no_terminal(at)
        reason = Reason.TERMINAL_SILENT if _terminal_is_used_up(at) else Reason.NO_TERMINAL
        return Finding(Rule.TERMINAL, reason, f"{words} ({code})"), None
    if (typed := _typed(at, session)) is not None:
        return _deferred(at, session, typed)
    number = trigger.next_number(at.wake)
    if _went_in(at, session):
        evidence = f"the terminal {session.session_id} has the prompt and did not acknowledge it yet"
        return Finding(Rule.TERMINAL, Reason.NO_ACK_YET, evidence), Press(session=session, number=number)
    beat = f"the terminal {session.session_id} lives, with a heartbeat {span(at.silence(session))} ago"
    return Finding(Rule.TERMINAL, Reason.LIVE_TERMINAL, beat), Deliver(session=session, number=number)


def resume(at: Standing) -> Verdict:
    """Unmanaged or offline: a turn of its latest session, unless that has been silent for long or keeps failing."""
    reason, words, session = _to_resume(at)
    if session is None:
        return Finding(Rule.RESUME, reason, words), None
    if session.session_id in at.seen.held:
        due = at.now + at.limits.interval
        return Finding(Rule.RESUME, Reason.SESSION_HELD, f"another turn of {session.session_id} runs"), Release(due_at=due)
    action = Resume(session=session, number=trigger.next_number(at.wake), code=why_no_terminal(at)[0])
    return Finding(Rule.RESUME, reason, words), action


def brake(at: Standing) -> Verdict:
    """The brake of crash loops: each failure beyond the third within the time makes the next new session wait longer."""
    beyond = len(at.failures) - at.limits.failures
    if not _can_spawn(at) or beyond <= 0:
        return Finding(Rule.BRAKE, Reason.CLEAR, f"{_failures(at)}; nothing holds a new session up"), None
    until = at.limits.backoff.until(Failures(beyond, at.failures[0]), at.now)
    if until is None:
        return Finding(Rule.BRAKE, Reason.CLEAR, f"{_failures(at)}; the wait is over"), None
    finding = Finding(Rule.BRAKE, Reason.BACKING_OFF, f"{_failures(at)}; no new session before {utc(until)}")
    return finding, Release(due_at=until, code=Code.WAKE_FAILED)


def spawn(at: Standing) -> Verdict:
    """A new session, which begins with the thread's summary."""
    if Way.SPAWN not in at.means.ways:
        return Finding(Rule.SPAWN, Reason.CANNOT_SPAWN, "this host has nothing that could start a session of it"), None
    if not _can_spawn(at):
        return Finding(Rule.SPAWN, Reason.SPAWNS_USED_UP, f"{count(at.limits.spawns, 'new session')} failed"), None
    evidence = f"a new session, {len(at.tried(Way.SPAWN)) + 1} of {at.limits.spawns}"
    action = Spawn(number=trigger.next_number(at.wake), code=why_no_terminal(at)[0])
    return Finding(Rule.SPAWN, Reason.SPAWNS, evidence), action


def give_up(at: Standing) -> Verdict:
    """Nothing is left: a dead letter, which its thread is told. Never silence."""
    made = trigger.counted(at.wake)
    code = next((one.code for one in reversed(made) if one.code), None) or why_no_terminal(at)[0]
    evidence = f"no way is left after {count(len(made), 'attempt')} ({code})"
    last = next((one.detail for one in reversed(made) if one.detail), "") or why_no_terminal(at)[1]
    settled = replace(
        dead_letter(at, code, evidence), detail=f"{evidence}; the last one: {last}" if made else f"{evidence}: {last}"
    )
    return Finding(Rule.DEAD_LETTER, Reason.EVERY_WAY_TRIED, evidence), settled


def dead_letter(at: Standing, code: Code, evidence: str) -> Settle:
    """End a trigger as one, with what its thread is told."""
    agent, name = at.case.agent_id, at.wake.trigger_id
    bounce = f"{agent} could not be woken: {evidence}. To try again: klorosctl triggers retry {name}"
    return Settle(status=Status.DEAD_LETTERED, outcome=Outcome.DEAD_LETTERED, code=code, detail=evidence, bounce=bounce)


def why_no_terminal(at: Standing) -> tuple[Code, str]:
    """Say why the terminal is not the way, or no more: for the attempt's row, and for people."""
    if at.seen.means is None:
        return Code.RUNTIME_NOT_FOUND, "no host has a profile for it"
    if _terminal_is_used_up(at):
        return Code.WAKE_FAILED, f"{count(len(at.tried(Way.LIVE)), 'attempt')} in its terminal came to nothing"
    refusals = [code for one in at.live if (code := _refusal(at, one))]
    if at.live and len(refusals) == len(at.live):
        return refusals[0], f"its terminal {at.live[0].session_id} refused the prompt"
    if at.live:  # it would do, but for the person who types there
        return Code.DEFER_TIMEOUT, f"a person types in its terminal, and was waited for {span(at.limits.defer_at_most)}"
    managed = [one for one in at.case.sessions if is_managed(one)]
    for session in managed:
        found = at.liveness(session)
        if found in _FOUND:
            code, words = _FOUND[found]
            return code, f"of its session {session.session_id}, {words}"
    if managed:
        return Code.RUNTIME_OFFLINE, f"no terminal of it beat within {span(at.limits.fresh_within)}"
    if at.case.sessions:
        return Code.RUNTIME_UNMANAGED, "none of its sessions is managed"
    return Code.RUNTIME_NOT_FOUND, "it has no session"


def _addressed(at: Standing) -> Session | None:
    """Choose the live terminal to turn to: the one that has the prompt, else one where nobody types."""
    if _terminal_is_used_up(at) or Way.LIVE not in at.means.ways:
        return None
    usable = [one for one in at.live if _refusal(at, one) is None]
    return min(usable, key=lambda one: (not _went_in(at, one), _typed(at, one) is not None), default=None)


def _refusal(at: Standing, session: Session) -> Code | None:
    """Return why an attempt could not put anything in there; None when it may be tried."""
    tried = (one.code for one in at.tried(Way.LIVE) if one.session_id == session.session_id)
    return next((code for code in tried if code in _STAYED_OUT), None)


def _went_in(at: Standing, session: Session) -> bool:
    return any(one.session_id == session.session_id for one in at.tried(Way.LIVE))


def _terminal_is_used_up(at: Standing) -> bool:
    return len(at.tried(Way.LIVE)) > at.limits.retries


def _typed(at: Standing, session: Session) -> datetime | None:
    """Return when a person typed there, if that holds us up: not when an operator has forced it."""
    typed = at.seen.probes[session.session_id].typed_at
    if typed is None or at.wake.forced or at.now - typed >= at.limits.typing_within:
        return None
    return typed


def _deferred(at: Standing, session: Session, typed: datetime) -> Verdict:
    """Wait for who types; at the end of patience the collision gets a row of its own, and then the terminal is left."""
    ends = _patience_ends(at)
    evidence = f"a person typed in {session.session_id} at {utc(typed)}"
    if at.now < ends:
        due = min(at.now + at.limits.defer_every, ends)
        finding = Finding(Rule.TERMINAL, Reason.OPERATOR_TYPES, f"{evidence}; waited for until {utc(ends)}")
        return finding, Defer(due_at=due, session=session)
    words = f"{evidence}, and was waited for {span(at.limits.defer_at_most)} ({Code.DEFER_TIMEOUT})"
    if at.has_collided:
        return Finding(Rule.TERMINAL, Reason.NO_TERMINAL, words), None
    action = Defer(due_at=at.now, session=session, code=Code.DEFER_TIMEOUT)
    return Finding(Rule.TERMINAL, Reason.COLLISION, words), action


def _patience_ends(at: Standing) -> datetime:
    return (at.first_deferral or at.now) + at.limits.defer_at_most


def _to_resume(at: Standing) -> tuple[Reason, str, Session | None]:
    tried: Sequence[Attempt] = at.tried(Way.RESUME)
    if Way.RESUME not in at.means.ways:
        return Reason.NOTHING_TO_RESUME, "this host has nothing that could resume a session of it", None
    if len(tried) >= at.limits.resumes:
        return Reason.RESUMES_USED_UP, f"{count(len(tried), 'resumed turn')} failed", None
    if at.crashes:
        return Reason.CRASH_LOOP, f"{_failures(at)}: a new session rather than an old one", None
    sessions = at.resumable()
    if not sessions:
        return Reason.NOTHING_TO_RESUME, "it has no session that could be resumed and is not in use", None
    session = sessions[0]
    silence = f"its session {session.session_id} was heard {span(at.silence(session))} ago"
    if at.silence(session) > at.limits.resume_within:
        return Reason.SILENT_TOO_LONG, f"{silence}: too long to go on with", None
    return Reason.RESUMABLE, f"{silence}; turn {len(tried) + 1} of {at.limits.resumes}", session


def _can_spawn(at: Standing) -> bool:
    return Way.SPAWN in at.means.ways and len(at.tried(Way.SPAWN)) < at.limits.spawns


def _failures(at: Standing) -> str:
    return f"{count(len(at.failures), 'failure')} of its runtime within {span(at.limits.failures_within)}"
