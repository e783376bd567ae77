"""Better, worse or neither: how a fitness is judged against the baseline's.

Pure. Higher is better. The gain is relative to the size of the baseline's fitness, (new - old) / |old|, so
that a rise is a gain with a negative baseline too. From a baseline of exactly 0 any rise is an infinite gain
and any fall an infinite loss. The numbers are compared as the decimals they are written as: 0.102 against 0.1
is +2 % exactly, which it is not in binary.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from statistics import median

_LARGEST_SHOWN = 10_000  # times; a larger gain is a baseline near zero, and its digits mean nothing


class Standing(StrEnum):
    """Where a promotion stands against the baseline."""

    BETTER = "better"
    NEUTRAL = "neutral"
    WORSE = "worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The outcome of one comparison."""

    standing: Standing
    fitness: float | None
    """What was measured or claimed; None when the promotion's own trial failed."""
    reason: str

    @property
    def accepted(self) -> bool:
        """Only what is better is accepted."""
        return self.standing is Standing.BETTER


def judge(old: float, new: float, *, accept_at: float, reject_below: float) -> Judgement:
    """Compare a fitness with the baseline's; all four are finite.

    `accept_at` ≥ 0 ≥ `reject_below` are fractions (0.02 is 2 %). Better from `accept_at` on, that value included;
    worse below `reject_below`, that value not included.
    """
    gain = relative_gain(old, new)
    compared = f"fitness {new:.6g} against the baseline's {old:.6g}, {percent(gain)}"
    if gain >= _exact(accept_at):
        return Judgement(standing=Standing.BETTER, fitness=new, reason=f"better: {compared}")
    if gain < _exact(reject_below):
        limit = f"rejected below {percent(_exact(reject_below))}"
        return Judgement(standing=Standing.WORSE, fitness=new, reason=f"worse: {compared}; {limit}")
    limit = f"accepted from {percent(_exact(accept_at))}"
    return Judgement(standing=Standing.NEUTRAL, fitness=new, reason=f"neutral: {compared}; {limit}")


def judge_runs(old: list[float], new: list[float], *, accept_at: float, reject_below: float) -> Judgement:
    """Compare the medians of two series of measurements, each of at least one."""
    return judge(median(old), median(new), accept_at=accept_at, reject_below=reject_below)


def relative_gain(old: float, new: float) -> Fraction | float:
    """Return (new - old) / |old| exactly; ±infinity from a baseline of 0."""
    before, after = _exact(old), _exact(new)
    if before == 0:
        return Fraction(0) if after == 0 else math.copysign(math.inf, after)
    return (after - before) / abs(before)


def fitness_of(output: str) -> float:
    """Read the fitness that a trial printed: its last line that is not blank, a number or a JSON object with `fitness`.

    Raises:
        ValueError: there is no such line, or no finite number on it.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if not lines:
        raise ValueError("it printed nothing")
    last = lines[-1]
    try:
        value = json.loads(last)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        value = value.get("fitness")
    if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
        raise ValueError(f"its last line is no finite fitness: {last[:200]!a}")
    return float(value)


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _exact(value: float) -> Fraction:
    return Fraction(repr(float(value)))


def percent(gain: Fraction | float) -> str:
    """Write a relative gain for people: `+2.5 %`."""
    if isinstance(gain, float) and math.isinf(gain):
        return "up from zero" if gain > 0 else "down from zero"
    if not -_LARGEST_SHOWN <= gain <= _LARGEST_SHOWN:
        return f"{'+' if gain > 0 else '-'}more than {_LARGEST_SHOWN * 100:,} %"
    return f"{float(gain) * 100:+.3g} %"
