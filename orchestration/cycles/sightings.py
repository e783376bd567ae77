"""Sightings: lines of a cycle's output that a rule of the observer watches for.

Whoever records a cycle's end looks through its output first, once, and notes what it saw together with that end; no tick
opens a log for it later. Bounded: the search runs in a process of its own (`line_search.py`), which may take `MOST_SECONDS`
for each rule, and `MOST_TOGETHER` for all; under the tick's lock, which is held for deciding only, `UNDER_THE_LOCK` for all.
A rule that takes longer has seen nothing, and is told.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestration.cycles import artifacts
from orchestration.cycles.cycle import Cause, Cycle, CycleNumber
from orchestration.host import clock
from orchestration.host.journal import Event, Priority, log
from orchestration.store.instants import to_text
from orchestration.store.port import Database

if TYPE_CHECKING:
    from orchestration.settings import Settings

MOST_SECONDS: Final = 10.0
MOST_TOGETHER: Final = 30.0
UNDER_THE_LOCK: Final = 1.0
# by its file and without site: it needs nothing but the standard library, and begins in half the time
_SEARCH: Final = (sys.executable, "-I", "-S", os.path.join(os.path.dirname(__file__), "line_search.py"))


class Sighting(NamedTuple):
    """What one rule saw."""

    number: int  # of lines
    lines: tuple[str, ...]  # the first of them


class Seen(NamedTuple):
    """What the rules saw; those that saw nothing are left out."""

    sightings: Mapping[str, Sighting]
    unfinished: tuple[str, ...] = ()  # rules that did not come to an end


NOTHING: Final = Seen({})


def of_cycle(cycle: Cycle, settings: Settings, *, within: float = MOST_TOGETHER) -> Seen:
    """Look through a cycle's output for what the observer's rules watch; not where no tick would ask them.

    It takes at most `within` seconds.
    """
    if cycle.origin.cause in (Cause.DIRECT, Cause.WAKE):  # nor do the words of agents ask for anything
        return NOTHING
    patterns = {name: rule.pattern for name, rule in settings.observer.rules.items() if rule.enabled and rule.pattern}
    seen = look(artifacts.output_path(artifacts.cycle_dir(settings.cycles_dir, cycle.cycle)), patterns, within=within)
    for rule in seen.unfinished:
        log(
            Event.OUTPUT_UNSEARCHED,
            f"the rule {rule} has not looked through the output of cycle {cycle.cycle}: its pattern took more than"
            f" {MOST_SECONDS:g} s, or all took more than {within:g} s; make [observer.rules.{rule}] pattern simpler",
            priority=Priority.WARNING,
            cycle=cycle.cycle,
            rule=rule,
        )
    return seen


def look(output: str, patterns: Mapping[str, str], *, within: float = MOST_TOGETHER) -> Seen:
    """Look through an output file for each rule's pattern, for `within` seconds at most. Never raises OSError."""
    if not _is_something(output):
        return NOTHING
    left, found, slow = dict(patterns), dict[str, Sighting](), list[str]()
    until = clock.monotonic() + within
    while left and (seconds := until - clock.monotonic()) > 0:
        done = _search(output, left, seconds)
        found |= done
        left = {rule: pattern for rule, pattern in left.items() if rule not in done}
        if left:  # the first of them was ended at its work
            slow.append(next(iter(left)))
            del left[slow[-1]]
    return Seen({rule: one for rule, one in found.items() if one.number}, (*slow, *left))


def _is_something(output: str) -> bool:
    try:
        return stat.S_ISREG((status := os.stat(output)).st_mode) and status.st_size > 0
    except OSError:
        return False


def note(db: Database, cycle: CycleNumber, seen: Seen) -> None:
    """Keep what was seen, and have the observer's rules asked. Inside the transaction that ends the cycle.

    The instant is that of the transaction, which nobody else writes in, so that no rule looks past it.
    """
    at = to_text(clock.now())
    for rule, one in seen.sightings.items():
        db.run("observer.see", cycle=cycle, rule=rule, at=at, number=one.number, lines=json.dumps(one.lines))
    if seen.sightings:
        db.run("facts.observer_news", now=at)


def _search(output: str, patterns: Mapping[str, str], seconds: float) -> dict[str, Sighting]:
    """Search in a process of its own; the rules that it came to an end with, in order."""
    import subprocess  # most cycles of a loop say nothing, and need not wait for it

    try:
        done = subprocess.run(
            (*_SEARCH, output, str(min(seconds, MOST_SECONDS))),
            input=json.dumps(patterns).encode(),
            env={},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=seconds,
        )
        told = done.stdout
    except subprocess.TimeoutExpired as late:
        told = late.stdout or b""
    except OSError:
        told = b""
    answers = (json.loads(line) for line in told.split(b"\n")[:-1])
    return {rule: Sighting(number, tuple(lines)) for rule, number, lines in answers}
