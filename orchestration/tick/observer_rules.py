"""The observer's rules: what was seen, and which intents it is worth. Pure; `observer.py` looks and writes.

A rule counts what happened within a span. What its last intent has told counts no more, and after it the rule is silent
for its cooldown; what happens meanwhile is told when that is over, if it still lies within the span. A heartbeat is silent
when its file was not touched for the span; each program has its own cooldown.

The kinds, their figures and `trigger_phase_promotion_cluster` are those of KLoROS's observer
(HomoYouDidnt/kloros, src/kloros/observer/rules.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

SHOWN = 10
"""Most occurrences that an intent names; it counts all of them."""
_LONGEST = 300  # characters of one of them


class Watch(StrEnum):
    """What a rule counts."""

    PROMOTIONS = "promotions"
    PHASE_FAILURES = "phase_failures"
    HEARTBEATS = "heartbeats"
    LOCK_CONTENTION = "lock_contention"
    OUTPUT = "output"


_WORDS = {
    Watch.PROMOTIONS: ("promotion arrived", "promotions arrived"),
    Watch.PHASE_FAILURES: ("PHASE ended without success", "PHASEs ended without success"),
    Watch.LOCK_CONTENTION: ("tick found the lock held", "ticks found the lock held"),
    Watch.OUTPUT: ("line was seen in cycles' output", "lines were seen in cycles' output"),
}


class Rule(NamedTuple):
    """One rule, as the settings have it."""

    name: str
    watch: Watch
    intent: str
    priority: int
    at_least: int
    within: timedelta
    cooldown: timedelta


class Occurrence(NamedTuple):
    """Something that happened, once or `number` times."""

    at: datetime  # aware UTC
    what: str
    number: int = 1


class Heartbeat(NamedTuple):
    """A program's heartbeat: when its file was touched last, or first found in a state that does not tell."""

    program: str
    file: str
    last: datetime  # aware UTC
    fault: str = ""  # why the file does not tell, such as "is not there"


class Seen(NamedTuple):
    """Everything the rules may know."""

    now: datetime  # aware UTC
    occurrences: Mapping[str, Sequence[Occurrence]]  # by rule, newest first
    heartbeats: Sequence[Heartbeat]
    told: Mapping[tuple[str, str], datetime]  # rule and subject: its last intent, never after `now`


class Firing(NamedTuple):
    """An intent that is to be made."""

    rule: str
    subject: str
    intent: str
    priority: int
    reason: str
    data: dict[str, object]


class Judged(NamedTuple):
    """What the rules want, and when the next of them may want something although nothing happens."""

    firings: tuple[Firing, ...]
    again_at: datetime | None


def judge(rules: Iterable[Rule], seen: Seen) -> Judged:
    """Ask every rule."""
    firings: list[Firing] = []
    later: list[datetime] = []
    for rule in rules:
        asked = _heartbeats(rule, seen) if rule.watch is Watch.HEARTBEATS else (_counted(rule, seen),)
        for one in asked:
            if isinstance(one, Firing):
                firings.append(one)
            elif one is not None:
                later.append(one)
    return Judged(tuple(firings), min(later, default=None))


def _counted(rule: Rule, seen: Seen) -> Firing | datetime | None:
    told = seen.told.get((rule.name, ""))
    since = seen.now - rule.within if told is None else max(told, seen.now - rule.within)
    counted = [one for one in seen.occurrences.get(rule.name, ()) if since < one.at <= seen.now]
    number = sum(one.number for one in counted)
    if number < rule.at_least:
        return None
    if told is not None and seen.now < told + rule.cooldown:
        return told + rule.cooldown
    one, many = _WORDS[rule.watch]
    reason = f"{number} {one if number == 1 else many} within {span(rule.within)}: {_short(counted[0].what)}"
    shown = [{"at": _utc(entry.at), "what": _short(entry.what)} for entry in counted[:SHOWN]]
    return _firing(rule, "", reason, {"count": number, "newest": shown})


def _heartbeats(rule: Rule, seen: Seen) -> Iterable[Firing | datetime]:
    for one in seen.heartbeats:
        silent_from = min(one.last, seen.now) + rule.within  # a file of the future lives
        told = seen.told.get((rule.name, one.program))
        if seen.now < silent_from:
            yield silent_from
        elif told is not None and seen.now < told + rule.cooldown:
            yield told + rule.cooldown
        else:
            how = one.fault or "was not touched"
            reason = f"{one.program} is silent: {one.file} {how} since {_utc(one.last)}, allowed are {span(rule.within)}"
            yield _firing(rule, one.program, reason, {"program": one.program, "file": one.file, "since": _utc(one.last)})


def _firing(rule: Rule, subject: str, reason: str, facts: dict[str, object]) -> Firing:
    data = {"rule": rule.name, "topic": reason, "within_seconds": rule.within.total_seconds(), **facts}
    return Firing(rule.name, subject, rule.intent, rule.priority, reason, data)


def span(length: timedelta) -> str:
    """Write a duration in its largest whole unit: `10 min`, `24 h`, `90 s`."""
    seconds = length.total_seconds()
    unit, name = next(((size, name) for size, name in ((3600, "h"), (60, "min")) if seconds % size == 0), (1, "s"))
    return f"{seconds / unit:g} {name}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _utc(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"
