"""The heartbeat: what the ticks of a span did, minute by minute, with every gap explained. Pure.

A minute shows the best that a tick in it did. A minute without a tick is explained by the ticks around it: another boot
after it means that the host was down, no tick before it that none had ever been recorded; else the host was up and
nothing ticked, which nobody here can explain.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import Final, NamedTuple

from orchestration.exits import Exit
from orchestration.pulse.health import Mode
from orchestration.pulse.loop_health import DECIDED, Beat, Heartbeat, Stretch
from orchestration.store.instants import to_text

SPAN: Final = 24 * 60
"""Minutes that the heartbeat covers."""
NEXT_TO: Final = timedelta(seconds=90)
"""Ticks so near to each other are a minute apart to a person, whatever minutes of the clock they fall in."""
_MINUTE: Final = timedelta(minutes=1)
_BEST: Final = tuple(Beat)


class Seen(NamedTuple):
    """Ticks of one minute and one boot that did the same."""

    first: datetime  # aware UTC
    last: datetime
    beat: Beat
    boot_id: str
    evidence: str = ""


class Now(NamedTuple):
    """What explains minutes after the last tick."""

    at: datetime
    boot_id: str
    mode: Mode


def beat_of(decision: str, exit_code: int) -> Beat:
    """Tell what one tick did, by its record."""
    if decision != "skipped":
        return Beat(decision)
    return {Exit.DISABLED: Beat.DISABLED, Exit.HALTED: Beat.HALTED, Exit.LOCK_HELD: Beat.LOCK_HELD}.get(
        Exit(exit_code), Beat.FAILED
    )


def span(now: datetime, newest: datetime | None) -> tuple[datetime, int]:
    """Return where the heartbeat begins, and how many minutes it has; the last is the one in which a tick is due no more."""
    minute = now.replace(second=0, microsecond=0)
    awaited = newest is not None and newest < minute and now - newest <= NEXT_TO
    return minute + (0 if awaited else 1) * _MINUTE - SPAN * _MINUTE, SPAN


def heartbeat(seen: Sequence[Seen], *, before: Seen | None, start: datetime, minutes: int, now: Now) -> Heartbeat:
    """Lay ticks out by minute.

    Args:
        seen: those of the span, oldest first. before: the newest one before it. start: a full minute.
    """
    shown: dict[int, tuple[Beat, str]] = {}
    for one in seen:
        minute = (one.first - start) // _MINUTE
        if minute not in shown or _is_better(one.beat, shown[minute][0]):
            shown[minute] = (one.beat, one.evidence)
    for earlier, later in pairwise(seen):
        between = (later.first - start) // _MINUTE - 1
        if between == (earlier.last - start) // _MINUTE + 1 and later.first - earlier.last <= NEXT_TO:
            shown.setdefault(between, (Beat.NOOP if later.beat in DECIDED else later.beat, later.evidence))
    beats = [shown.get(minute) or (Beat.UNKNOWN, "") for minute in range(minutes)]
    for first, last in _holes(shown, minutes):
        explained = _explain(seen, before, start + first * _MINUTE, now)
        beats[first:last] = [explained] * (last - first)
    return Heartbeat(start=start, minutes=minutes, stretches=tuple(_stretches(beats, start)))


def _is_better(one: Beat, other: Beat) -> bool:
    return _BEST.index(one) < _BEST.index(other)


def _holes(shown: dict[int, tuple[Beat, str]], minutes: int) -> Iterator[tuple[int, int]]:
    """Give first and last (not included) of each run of minutes that no tick fell in."""
    filled = [-1, *sorted(minute for minute in shown if 0 <= minute < minutes), minutes]
    for one, other in pairwise(filled):
        if other - one > 1:
            yield one + 1, other


def _explain(seen: Sequence[Seen], before: Seen | None, hole: datetime, now: Now) -> tuple[Beat, str]:
    position = bisect_left(seen, hole, key=lambda one: one.first)
    earlier = seen[position - 1] if position else before
    later = seen[position] if position < len(seen) else None
    if earlier is None:
        return Beat.BEFORE, ""
    since = f"no tick since {to_text(earlier.last)[:19]}Z"
    if (later.boot_id if later else now.boot_id) != earlier.boot_id:
        return Beat.HOST_DOWN, f"{since}, and the host was started again after it"
    if later is None and now.mode is Mode.DISABLED:
        return Beat.DISABLED, f"{since}; the mode is not 'enabled'"
    if later is None and now.mode is Mode.HALTED:
        return Beat.HALTED, f"{since}; the kill switch is set"
    return Beat.UNKNOWN, f"{since}, and the host was up: is the timer enabled?"


def _stretches(beats: Sequence[tuple[Beat, str]], start: datetime) -> Iterator[Stretch]:
    minute = 0
    for beat, run in groupby(beats, key=lambda one: one[0]):
        evidence = [text for _, text in run]
        told = "" if beat in DECIDED else evidence[-1]
        yield Stretch(beat=beat, start=start + minute * _MINUTE, minutes=len(evidence), evidence=told)
        minute += len(evidence)
