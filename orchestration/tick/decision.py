"""What a tick does next: the rules in order of precedence, and the closed union they choose from.

Pure: an `Observation` and a `Policy` in, a `Decision` out. Every rule that was asked leaves a `Finding`, so the
reasons of a decision, and above all of a decision to do nothing, are what the rules saw and not a second opinion.
"""

from collections.abc import Callable
from datetime import date, datetime
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from orchestration.cycles.cycle import FINISHED, Cause
from orchestration.intents.intent import Category
from orchestration.tick.observation import Observation, Policy


class Rule(StrEnum):
    """The rules, in order of precedence."""

    MAINTENANCE = "maintenance"
    ACTIVE_CYCLE = "active_cycle"
    PHASE_WINDOW = "phase_window"
    MISSED_WINDOW = "missed_window"
    PROMOTIONS = "promotions"
    INTENTS = "intents"


class Reason(StrEnum):
    """What a rule found. Those of one NOOP together say why nothing was started."""

    MAINTENANCE_MODE = "maintenance_mode"
    NO_MAINTENANCE = "no_maintenance"
    CYCLE_ACTIVE = "cycle_active"
    NO_ACTIVE_CYCLE = "no_active_cycle"
    OUTSIDE_PHASE_WINDOW = "outside_phase_window"
    PHASE_DONE_TODAY = "phase_done_today"
    PHASE_DUE = "phase_due"
    NO_MISSED_WINDOW = "no_missed_window"
    WINDOW_MISSED = "window_missed"
    NO_UNACKED_PROMOTIONS = "no_unacked_promotions"
    PARKED = "parked"
    PROMOTIONS_UNREADABLE = "promotions_unreadable"
    BACKING_OFF = "backing_off"
    UNACKED_PROMOTIONS = "unacked_promotions"
    NO_INTENTS = "no_intents"
    INTENT_PENDING = "intent_pending"


CLEAR = frozenset({Reason.NO_MAINTENANCE, Reason.NO_ACTIVE_CYCLE, Reason.NO_MISSED_WINDOW})
"""Findings that hold nothing up; they are left out where reasons for a NOOP are listed."""


SKIPPING = (
    Reason.MAINTENANCE_MODE,
    Reason.CYCLE_ACTIVE,
    Reason.OUTSIDE_PHASE_WINDOW,
    Reason.PHASE_DONE_TODAY,
    Reason.BACKING_OFF,
    Reason.NO_UNACKED_PROMOTIONS,
    Reason.PARKED,
    Reason.PROMOTIONS_UNREADABLE,
    Reason.NO_INTENTS,
)
"""Findings that can be among the reasons of a NOOP; the others start something or are clear."""


class Finding(NamedTuple):
    """What one rule saw: the reason for machines, the evidence for people (UTC times)."""

    rule: Rule
    reason: Reason
    evidence: str


class Phase(NamedTuple):
    """Start a PHASE; `phase_date` is the local date it answers, None when a person or agent asked for one beside it."""

    cause: Cause
    phase_date: date | None
    intent: str = ""
    topic: str = ""
    findings: tuple[Finding, ...] = ()


class DreamCycle(NamedTuple):
    """Start a D-REAM cycle for these promotions, or on a topic that an intent named."""

    cause: Cause
    promotions: tuple[str, ...] = ()
    intent: str = ""
    topic: str = ""
    findings: tuple[Finding, ...] = ()


class Reflection(NamedTuple):
    """Start a reflection, for which nothing else waits; `intent` asked for it."""

    cause: Cause
    intent: str = ""
    topic: str = ""
    findings: tuple[Finding, ...] = ()


class Noop(NamedTuple):
    """Start nothing."""

    findings: tuple[Finding, ...] = ()


Decision: TypeAlias = Phase | DreamCycle | Reflection | Noop
_Verdict: TypeAlias = tuple[Finding, Decision | None]


def decide(seen: Observation, policy: Policy) -> Decision:
    """Ask the rules in order; the first that chooses decides."""
    findings: list[Finding] = []
    for rule in RULES:
        finding, choice = rule(seen, policy)
        findings.append(finding)
        if choice is not None:
            return choice._replace(findings=tuple(findings))
    return Noop(tuple(findings))


def blocking(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Return the findings that held something up, in order."""
    return tuple(finding for finding in findings if finding.reason not in CLEAR)


def phase_blocker(seen: Observation, decision: Decision) -> Reason | None:
    """Tell why a tick inside a window, whose date still lacks its PHASE, did not start it; None when that is not so."""
    if seen.window is None or seen.phase_done or isinstance(decision, Phase):
        return None
    before = (Rule.MAINTENANCE, Rule.ACTIVE_CYCLE, Rule.PHASE_WINDOW)
    return next(f.reason for f in decision.findings if f.rule in before and f.reason not in CLEAR)


def _maintenance(seen: Observation, _policy: Policy) -> _Verdict:
    if seen.maintenance:
        return Finding(Rule.MAINTENANCE, Reason.MAINTENANCE_MODE, "the file maintenance_mode exists"), Noop()
    return Finding(Rule.MAINTENANCE, Reason.NO_MAINTENANCE, "no file maintenance_mode"), None


def _active_cycle(seen: Observation, _policy: Policy) -> _Verdict:
    active = seen.active
    if active is None:
        return Finding(Rule.ACTIVE_CYCLE, Reason.NO_ACTIVE_CYCLE, "no cycle is queued or running"), None
    if active.state in FINISHED:
        evidence = f"cycle {active.cycle} ({active.job}) ended just now ({active.state}); the next tick settles it"
    else:
        since = active.started_at or active.queued_at
        waits = f": {seen.active_waits}" if seen.active_waits else ""
        evidence = f"cycle {active.cycle} ({active.job}) is {active.state} since {_utc(since)}{waits}"
    return Finding(Rule.ACTIVE_CYCLE, Reason.CYCLE_ACTIVE, evidence), Noop()


def _phase_window(seen: Observation, policy: Policy) -> _Verdict:
    if seen.window is None:
        evidence = f"the next window, of {seen.next_window.date}, opens {_utc(seen.next_window.opens)}"
        return Finding(Rule.PHASE_WINDOW, Reason.OUTSIDE_PHASE_WINDOW, evidence), None
    if seen.phase_done:
        return Finding(Rule.PHASE_WINDOW, Reason.PHASE_DONE_TODAY, f"{seen.window.date} has its PHASE"), None
    until = policy.phase_backoff.until(seen.phase_failures, seen.now)
    if until is not None:
        evidence = f"until {_utc(until)}, after {_failures(seen.phase_failures.in_a_row)} of {seen.window.date}"
        return Finding(Rule.PHASE_WINDOW, Reason.BACKING_OFF, evidence), None
    evidence = f"{seen.window.date} has no PHASE; its window closes {_utc(seen.window.closes)}"
    return Finding(Rule.PHASE_WINDOW, Reason.PHASE_DUE, evidence), Phase(Cause.WINDOW, seen.window.date)


def _missed_window(seen: Observation, _policy: Policy) -> _Verdict:
    if seen.missed is None:
        return Finding(Rule.MISSED_WINDOW, Reason.NO_MISSED_WINDOW, "no closed window is to be made up for"), None
    evidence = f"the window of {seen.missed.date} closed {_utc(seen.missed.closes)} without a PHASE"
    return Finding(Rule.MISSED_WINDOW, Reason.WINDOW_MISSED, evidence), Phase(Cause.MISSED_WINDOW, seen.missed.date)


def _promotions(seen: Observation, policy: Policy) -> _Verdict:
    if not seen.promotions:
        if seen.parked:
            return Finding(Rule.PROMOTIONS, Reason.PARKED, f"parked: {_listed(seen.parked)}"), None
        if seen.left:
            evidence = f"left for a later tick: {_listed(seen.left)}; why: klorosctl promotions list"
            return Finding(Rule.PROMOTIONS, Reason.PROMOTIONS_UNREADABLE, evidence), None
        return Finding(Rule.PROMOTIONS, Reason.NO_UNACKED_PROMOTIONS, "every promotion has its ack"), None
    until = policy.dream_backoff.until(seen.dream_failures, seen.now)
    if until is not None:
        waiting = f"{len(seen.promotions)} unacked wait"
        evidence = f"until {_utc(until)}, after {_failures(seen.dream_failures.in_a_row)}; {waiting}"
        return Finding(Rule.PROMOTIONS, Reason.BACKING_OFF, evidence), None
    finding = Finding(Rule.PROMOTIONS, Reason.UNACKED_PROMOTIONS, f"unacked: {_listed(seen.promotions)}")
    return finding, DreamCycle(Cause.PROMOTIONS, promotions=seen.promotions)


def _intents(seen: Observation, _policy: Policy) -> _Verdict:
    if not seen.intents:
        return Finding(Rule.INTENTS, Reason.NO_INTENTS, "no pending intent starts anything"), None
    first = next((one for one in seen.intents if one.category is not Category.REFLECTION), seen.intents[0])
    evidence = f"{first.name}: {first.intent_type}, priority {first.priority}, of {len(seen.intents)} pending"
    finding = Finding(Rule.INTENTS, Reason.INTENT_PENDING, evidence)
    if first.category is Category.PHASE:
        due = seen.window.date if seen.window is not None and not seen.phase_done else None
        return finding, Phase(Cause.INTENT, due, intent=first.name, topic=first.topic)
    if first.category is Category.REFLECTION:
        return finding, Reflection(Cause.INTENT, intent=first.name, topic=first.topic)
    return finding, DreamCycle(Cause.INTENT, intent=first.name, topic=first.topic)


RULES: tuple[Callable[[Observation, Policy], _Verdict], ...] = (
    _maintenance,
    _active_cycle,
    _phase_window,
    _missed_window,
    _promotions,
    _intents,
)


def _utc(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%SZ}"


def _failures(number: int) -> str:
    return "1 failure" if number == 1 else f"{number} failures in a row"


def _listed(names: tuple[str, ...], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
