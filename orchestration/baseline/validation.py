"""Whether a version of the baseline was for the better, by the results of the PHASEs under it.

Pure. Owns which results are compared, and what follows; refuses to know where results are kept (`verdicts.py`).

Like is compared with like. Only results of one measure count (`phase/result.py`): that of the newest one under the version.
PHASEs of different types do different work, so each result after is set against the median of those before of its own type:

    change of one result = (result - level) / |level|      level: median before, of the same type
    change of a version  = median of these

With one type this is the relative change of the median. Of each type as many results count on one side as on the other,
the newest, so that no single one before stands against many after. Nothing is relative to 0: a type whose level is 0 says
nothing unless its results are 0 as well, and where that leaves too few, the version stays undecided.

A verdict is final. It falls with the first PHASE that makes up the number, since whoever looks again after every further
PHASE sees a fall sooner or later that is none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from statistics import median

from orchestration.baseline.version import Kind
from orchestration.promotions.judgement import percent, relative_gain


class Verdict(StrEnum):
    """What was concluded of a version; without one it is undecided."""

    KEPT = "kept"
    NEUTRAL = "neutral"
    ROLLED_BACK = "rolled_back"
    ESCROWED = "escrowed"  # worse, and a person is asked whether to roll back
    WORSE = "worse"  # worse, and nothing was done about it


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one PHASE; `value` is finite, higher is better."""

    cycle: int
    phase_type: str  # empty: it was advised none
    measure: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the settings say: `keep_at` ≥ 0 ≥ `roll_back_below` are fractions, `results` ≥ 3 the number on each side."""

    keep_at: float
    roll_back_below: float
    results: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Results of two versions, like with like, by number of cycle; both sides have as many."""

    before: tuple[Result, ...]
    after: tuple[Result, ...]
    change: Fraction | None  # None: there are not enough

    @property
    def numbers(self) -> str:
        """Say in words what came of it."""
        if self.change is None:
            return f"{len(self.after)} PHASE results that can be compared"
        return f"{percent(self.change)} in the median of {len(self.after)} PHASEs, by {self.after[-1].measure}"

    @property
    def relative(self) -> float | None:
        """The change as a float; the largest there is for one beyond."""
        if self.change is None:
            return None
        limit = Fraction(sys.float_info.max)
        return float(min(limit, max(-limit, self.change)))


def compare(before: Iterable[Result], after: Iterable[Result], *, results: int) -> Comparison:
    """Compare the results under a version with those under the version before, each given in any order."""
    given = sorted(after, key=_cycle)
    measure = given[-1].measure if given else ""
    sides = [_by_type(one for one in side if one.measure == measure) for side in (before, given)]
    old, new, changes = [], [], []
    for phase_type in sides[0].keys() & sides[1].keys():
        number = min(len(side[phase_type]) for side in sides)
        olds, news = (side[phase_type][-number:] for side in sides)
        found = _changes(olds, news)
        if found is not None:
            old += olds
            new += news
            changes += found
    enough = len(changes) >= results
    return Comparison(
        before=tuple(sorted(old, key=_cycle)),
        after=tuple(sorted(new, key=_cycle)),
        change=median(changes) if enough else None,
    )


def standing(comparison: Comparison, limits: Limits) -> Verdict | None:
    """Judge a comparison: `KEPT`, `NEUTRAL` or `WORSE`; None while it is undecided.

    Kept from `keep_at` on, that value included; worse below `roll_back_below`, that value not included.
    """
    change = comparison.change
    if change is None:
        return None
    if change >= _exact(limits.keep_at):
        return Verdict.KEPT
    return Verdict.WORSE if change < _exact(limits.roll_back_below) else Verdict.NEUTRAL


def hindrance(*, version: int, in_force: int) -> str:
    """Say why a version that is worse can't be rolled back; empty when it can."""
    if in_force != version:
        return f"version {in_force} is in force by now"
    return "there is no version before the first" if version == 1 else ""


def asking(kind: Kind, *, automatic: bool) -> str:
    """Say why a person decides on rolling back a version that is worse, and no tick; empty when a tick may.

    A rollback is never taken back by itself, whoever made it: what it put in force was in force before, and the two would
    take turns for ever.
    """
    if kind is Kind.ROLLBACK:
        return "it is a rollback itself"
    return "" if automatic else "[validation] automatic is off"


def _by_type(results: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for one in sorted(results, key=_cycle):
        found.setdefault(one.phase_type, []).append(one)
    return found


def _changes(before: Sequence[Result], after: Sequence[Result]) -> list[Fraction] | None:
    """Return the change of each result after against the level before; None where nothing is relative to it."""
    level = float(median(_exact(one.value) for one in before))
    found = [relative_gain(level, one.value) for one in after]
    exact = [change for change in found if isinstance(change, Fraction)]
    return exact if len(exact) == len(found) else None


def _cycle(result: Result) -> int:
    return result.cycle


def _exact(value: float) -> Fraction:
    """Return a number as the decimal it is written as, as `relative_gain` does."""
    return Fraction(repr(float(value)))
