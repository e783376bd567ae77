"""What a supervisor does next about a case: the rules in order of precedence, and decide() that asks them.

Pure: an observation and the limits in, a decision out. Every rule that was asked leaves a finding, so that a decision, and
above all one to leave an agent asleep, is explained by what the rules saw and not by a second opinion.

A case without an open trigger goes by `WITHOUT_TRIGGER`, which ends in a trigger; one with it by `WITH_TRIGGER`, which goes
from the terminal to a resumed session to a new one and ends in a dead letter. Nothing falls out of either table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, TypeAlias

from orchestration.bridge.wake import flight, trigger, ways
from orchestration.bridge.wake.action import Action, Claim, Decision, Finding, Queue, Reason, Release, Rest, Rule, Settle
from orchestration.bridge.wake.limits import Limits
from orchestration.bridge.wake.observation import Seen
from orchestration.bridge.wake.prompt import handed_over
from orchestration.bridge.wake.standing import Standing
from orchestration.bridge.wake.state import Code, Outcome, Status, Wake, Way
from orchestration.bridge.wake.words import clean, count, span, utc
from orchestration.bridge.wire import ThreadStatus
from orchestration.cycles.backoff import Failures

Verdict: TypeAlias = tuple[Finding, Action | None]

_OF_THE_THREAD: Final = frozenset({Code.THREAD_AUTO_BLOCKED, Code.TARGET_NOT_FOUND})
"""Codes of a trigger that was cancelled for its thread's sake: it says nothing about the messages."""


def decide(seen: Seen, limits: Limits) -> Decision:
    """Ask the rules in order; the first that chooses decides, and what takes the claim is preceded by claiming."""
    standing = Standing(seen, limits)
    findings: list[Finding] = []
    for rule in (WITH_TRIGGER if standing.is_open else WITHOUT_TRIGGER).values():
        finding, action = rule(standing)
        findings.append(replace(finding, evidence=clean(finding.evidence, lines=False)))
        if action is not None:
            return Decision(_as_holder(_in_plain_words(action), standing), tuple(findings))
    raise AssertionError("the last rule of each table decides")


def _in_plain_words(action: Action) -> Action:
    """Names and reasons are others' words, and end up on terminals and in threads."""
    if isinstance(action, Settle):
        return replace(action, detail=clean(action.detail, lines=False), bounce=clean(action.bounce, lines=False))
    return action


def _as_holder(action: Action, at: Standing) -> Action:
    if not at.is_open:
        return action
    if not isinstance(action, Rest):
        return action if at.is_ours else Claim()
    if at.is_ours and at.flight is None:
        return Release(due_at=at.now + at.limits.interval)  # so that another host, or a later word, finds it due
    return action


# Rules of both tables


def _thread(at: Standing) -> Verdict:
    """A blocked, resolved or closed thread triggers nobody, and ends what is open."""
    status = at.case.thread_status
    if status is ThreadStatus.ACTIVE:
        return Finding(Rule.THREAD, Reason.CLEAR, "the thread is active"), None
    because = f" ({at.case.status_reason})" if at.case.status_reason else ""
    finding = Finding(Rule.THREAD, Reason.THREAD_NOT_ACTIVE, f"the thread is {status}{because}")
    if not at.is_open:
        return finding, Rest()
    code = Code.THREAD_AUTO_BLOCKED if status is ThreadStatus.BLOCKED else Code.TARGET_NOT_FOUND
    return finding, Settle(status=Status.CANCELLED, outcome=Outcome.FAILED, code=code, detail=finding.evidence)


def _participation(at: Standing) -> Verdict:
    if at.case.takes_part:
        return Finding(Rule.PARTICIPATION, Reason.CLEAR, "the agent takes part"), None
    finding = Finding(Rule.PARTICIPATION, Reason.LEFT_THE_THREAD, "the agent is no participant of the thread")
    if not at.is_open:
        return finding, Rest()
    detail = finding.evidence
    return finding, Settle(status=Status.CANCELLED, outcome=Outcome.FAILED, code=Code.TARGET_NOT_FOUND, detail=detail)


def _pause(at: Standing) -> Verdict:
    if not at.case.paused:
        return Finding(Rule.PAUSE, Reason.CLEAR, "the agent is not paused"), None
    return Finding(Rule.PAUSE, Reason.PAUSED, "an operator has paused the agent"), Rest()


def _profile(at: Standing) -> Verdict:
    """An agent that this host has no profile for is left to the others; when none takes it up, its trigger must end."""
    if at.seen.means is not None:
        return Finding(Rule.PROFILE, Reason.CLEAR, "this host has a profile for the agent"), None
    nobody = "this host has neither a profile for the agent nor a terminal of it"
    if not at.is_open:
        return Finding(Rule.PROFILE, Reason.NO_PROFILE, nobody), Rest()
    overdue = at.wake.due_at
    if at.wake.lease_until is not None and not at.is_ours:  # somebody had taken it up
        overdue = max(overdue, at.wake.lease_until)
    if at.now < (until := overdue + at.limits.orphaned_after):
        return Finding(Rule.PROFILE, Reason.NO_PROFILE, nobody), Rest(until=until)
    waited = f"and no other has taken the trigger up since {utc(overdue)}"
    return Finding(Rule.PROFILE, Reason.ORPHANED, f"{nobody}, {waited}"), None


def _awake(at: Standing) -> Verdict:
    """Never a second writer: an agent that is at work by itself reads by itself, unless its terminal can be told. What it
    was to be told in words becomes a message for it, which it reads, or is woken for once it is at work no more."""
    session = at.awake
    if session is None:
        return Finding(Rule.AWAKE, Reason.CLEAR, "no unmanaged session is at work"), None
    beat = f"its unmanaged session {session.session_id} is active, with a heartbeat {span(at.silence(session))} ago"
    if at.is_open:
        words = "" if trigger.of_unread(at.wake) else handed_over(at.wake)
        return Finding(Rule.AWAKE, Reason.ALREADY_ACTIVE, beat), Settle(
            status=Status.DONE, outcome=Outcome.ALREADY_ACTIVE, detail=beat, words=words
        )
    if at.terminals:
        return Finding(Rule.AWAKE, Reason.CLEAR, f"{beat}, and a terminal can be told"), None
    return Finding(Rule.AWAKE, Reason.ALREADY_ACTIVE, beat), Rest(until=session.heartbeat_at + at.limits.fresh_within)


# Rules of a case without an open trigger


def _unread(at: Standing) -> Verdict:
    if at.case.unread:
        return Finding(Rule.UNREAD, Reason.CLEAR, _unread_words(at)), None
    return Finding(Rule.UNREAD, Reason.NOTHING_UNREAD, f"nothing is unread after message {at.case.cursor}"), Rest()


def _cooldown(at: Standing) -> Verdict:
    last = at.case.wake
    until = last.ended_at + at.limits.cooldown if last and last.ended_at else None
    if last is None or until is None or at.now >= until:
        return Finding(Rule.COOLDOWN, Reason.CLEAR, "no trigger has ended just now"), None
    evidence = f"trigger {last.trigger_id} ended less than {span(at.limits.cooldown)} ago"
    return Finding(Rule.COOLDOWN, Reason.COOLING_DOWN, evidence), Rest(until=until)


def _heed(at: Standing) -> Verdict:
    """Messages that somebody was woken for already wake again ever more slowly, and not at all after a dead letter."""
    last = at.case.wake
    if last is None or last.code in _OF_THE_THREAD or _is_news(at, last):
        return Finding(Rule.HEED, Reason.CLEAR, "the agent was not woken for these messages yet"), None
    if last.outcome is Outcome.ALREADY_ACTIVE:
        if at.awake is None:
            return Finding(Rule.HEED, Reason.CLEAR, "it was at work by itself, is so no more, and has not read"), None
        evidence = f"trigger {last.trigger_id} found it at work by itself, as it is still"
        return Finding(Rule.HEED, Reason.ALREADY_ACTIVE, evidence), Rest(
            until=at.awake.heartbeat_at + at.limits.fresh_within
        )
    if last.status is Status.DONE:
        woken = sum(at.case.unread_since is None or when >= at.case.unread_since for when in at.case.attempted_at)
        until = at.limits.backoff.until(Failures(woken, last.ended_at), at.now)
        evidence = f"trigger {last.trigger_id} has woken it ({last.outcome}), and it has not read since"
        if until is None:
            return Finding(Rule.HEED, Reason.CLEAR, f"{evidence}; the wait is over"), None
        return Finding(Rule.HEED, Reason.TOLD_ALREADY, f"{evidence}; again at {utc(until)}"), Rest(until=until)
    evidence = f"trigger {last.trigger_id} was {last.status}{_coded(last)}, and nothing was posted since"
    if last.status is Status.DEAD_LETTERED and (back := _came_back(at, last)):
        return Finding(Rule.HEED, Reason.CLEAR, f"{evidence}, but the terminal {back} is there by now"), None
    return Finding(Rule.HEED, Reason.GIVEN_UP, evidence), Rest()


def _coalesce(at: Standing) -> Verdict:
    """All that is unread becomes one trigger, since a case has no second one while it is open."""
    given_up = at.case.wake is not None and at.case.wake.status is Status.DEAD_LETTERED
    return Finding(Rule.COALESCE, Reason.UNREAD_MESSAGES, _unread_words(at)), Queue(reason=_unread_words(at), anew=given_up)


def _is_news(at: Standing, last: Wake) -> bool:
    told = max([last.created_at, *at.case.attempted_at[:1]])
    return at.case.unread_last_at is None or at.case.unread_last_at > told


def _came_back(at: Standing, last: Wake) -> str:
    """Name a terminal that was not there before: one that was, and was left aside for another, is no news. Two terminals of
    one agent would take turns for good."""
    tried = {one.session_id for one in last.attempts}
    was_told = any(one.way is Way.LIVE for one in last.attempts)
    for session in at.live:
        since = at.seen.probes[session.session_id].since
        newer = since is not None and last.ended_at is not None and since > last.ended_at
        if session.session_id not in tried and (newer or not was_told):
            return session.session_id
    return ""


def _coded(wake: Wake) -> str:
    return f" ({wake.code})" if wake.code else ""


def _unread_words(at: Standing) -> str:
    since = f" since {utc(at.case.unread_since)}" if at.case.unread_since else ""
    return f"{count(at.case.unread, 'message')} unread{since}"


# Rules of an open trigger, before a way is chosen


def _claim(at: Standing) -> Verdict:
    """What another supervisor holds is its own until its lease ends."""
    if at.is_claimed and not at.is_ours:
        evidence = f"{at.wake.holder} holds the trigger until {utc(at.wake.lease_until)}"
        return Finding(Rule.CLAIM, Reason.CLAIMED_ELSEWHERE, evidence), Rest(until=at.wake.lease_until)
    return Finding(Rule.CLAIM, Reason.CLEAR, "no other supervisor holds the trigger"), None


def _read(at: Standing) -> Verdict:
    """Who has read needs no waking, unless a turn that had read for us broke off."""
    clear = Finding(Rule.READ, Reason.CLEAR, "the agent has not read it yet")
    if at.turn_failed:
        return Finding(Rule.READ, Reason.CLEAR, "a turn broke off, so that what it had read counts as unread"), None
    told = [one for one in at.tried(Way.LIVE) if at.case.cursor > one.cursor]
    if told:
        evidence = f"its cursor went from {told[-1].cursor} to {at.case.cursor} since attempt {told[-1].number}"
        return Finding(Rule.READ, Reason.ACKNOWLEDGED, evidence), _done(Outcome.TRIGGERED, evidence)
    if trigger.of_unread(at.wake) and not at.case.unread:
        evidence = f"it has read everything, up to message {at.case.cursor}"
        return Finding(Rule.READ, Reason.ALREADY_READ, evidence), _done(Outcome.ALREADY_ACTIVE, evidence)
    return clear, None


def _due(at: Standing) -> Verdict:
    if at.wake.status is Status.QUEUED and at.wake.due_at > at.now:
        why = f" ({at.wake.code})" if at.wake.code else ""
        return Finding(Rule.DUE, Reason.NOT_DUE, f"its trigger rests until {utc(at.wake.due_at)}{why}"), Rest(
            until=at.wake.due_at
        )
    return Finding(Rule.DUE, Reason.CLEAR, "the trigger is due"), None


def _unheeded(at: Standing) -> Verdict:
    """An agent that is woken again and again for the same messages and reads none of them is given up."""
    made, since = at.wake.created_at, at.case.unread_since
    woken = 0 if since is None else sum(since <= when < made for when in at.case.attempted_at)
    if woken < at.limits.unheeded or at.wake.renewed_at is not None or not trigger.of_unread(at.wake):
        return Finding(Rule.UNHEEDED, Reason.CLEAR, f"{count(woken, 'attempt')} by earlier triggers at these messages"), None
    evidence = f"{count(woken, 'attempt')} since {utc(since)} were made at the same messages, which it has not read"
    return Finding(Rule.UNHEEDED, Reason.NEVER_READS, evidence), ways.dead_letter(at, Code.WAKE_FAILED, evidence)


def _rate(at: Standing) -> Verdict:
    """At most so many attempts within any minute, per thread and agent."""
    minute = [when for when in at.case.attempted_at if at.now - when < ways.MINUTE]
    if len(minute) < (most := at.limits.attempts_per_minute):
        return Finding(Rule.RATE, Reason.CLEAR, f"{count(len(minute), 'attempt')} within the last minute"), None
    until = minute[most - 1] + ways.MINUTE
    finding = Finding(Rule.RATE, Reason.RATE_LIMITED, f"{count(len(minute), 'attempt')} within the last minute")
    return finding, Release(due_at=until, code=Code.TRIGGER_RATE_LIMITED)


def _done(outcome: Outcome, detail: str) -> Settle:
    return Settle(status=Status.DONE, outcome=outcome, detail=detail)


WITHOUT_TRIGGER: Final[Mapping[Rule, Callable[[Standing], Verdict]]] = MappingProxyType(
    {
        Rule.THREAD: _thread,
        Rule.PARTICIPATION: _participation,
        Rule.UNREAD: _unread,
        Rule.PROFILE: _profile,
        Rule.PAUSE: _pause,
        Rule.AWAKE: _awake,
        Rule.COOLDOWN: _cooldown,
        Rule.HEED: _heed,
        Rule.COALESCE: _coalesce,
    }
)
WITH_TRIGGER: Final[Mapping[Rule, Callable[[Standing], Verdict]]] = MappingProxyType(
    {
        Rule.CLAIM: _claim,
        Rule.PROFILE: _profile,
        Rule.FLIGHT: flight.attempt,
        Rule.THREAD: _thread,
        Rule.PARTICIPATION: _participation,
        Rule.READ: _read,
        Rule.PAUSE: _pause,
        Rule.DUE: _due,
        Rule.UNHEEDED: _unheeded,
        Rule.RATE: _rate,
        Rule.ELSEWHERE: ways.elsewhere,
        Rule.TERMINAL: ways.terminal,
        Rule.AWAKE: _awake,
        Rule.RESUME: ways.resume,
        Rule.BRAKE: ways.brake,
        Rule.SPAWN: ways.spawn,
        Rule.DEAD_LETTER: ways.give_up,
    }
)
