"""Figures over many cycles. Pure. What a cycle does not have is left out of a mean, never counted as 0."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from statistics import fmean
from typing import NamedTuple

from orchestration.cycles.cycle import FINISHED, CycleState
from orchestration.pulse.loop_health import Summary

NEWEST = 1000
"""Finished cycles that rate, durations and means are those of."""


class Ended(NamedTuple):
    """What the figures need to know of one finished cycle."""

    state: CycleState
    seconds: float | None
    series: Mapping[str, float]


def summarise(
    ended: Sequence[Ended],
    totals: Mapping[str, Mapping[str, int]],
    *,
    measured: Iterable[Mapping[str, float]] | None = None,
) -> Summary:
    """Sum up finished cycles, newest first.

    Args:
        totals: of all there ever were.
        measured: series of each cycle that means are made of, where not only the finished ones are.
    """
    judged = [one for one in ended if one.state is not CycleState.CANCELLED]
    succeeded = sum(one.state is CycleState.SUCCEEDED for one in judged)
    streak = ended[0].state if ended else None
    seconds = sorted(one.seconds for one in ended if one.seconds is not None)
    return Summary(
        totals=totals,
        over=len(ended),
        success_rate=succeeded / len(judged) if judged else None,
        streak_state=streak,
        streak=sum(1 for _ in takewhile(lambda one: one.state is streak, ended)),
        mean_seconds=_mean(seconds),
        p95_seconds=_percentile(seconds, 0.95),
        means=_means([one.series for one in ended] if measured is None else measured),
    )


def totals_of(counted: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    """Return job → state → number, in the lifecycle's order, without what never was."""
    order = {str(state): position for position, state in enumerate(CycleState) if state in FINISHED}
    totals: dict[str, dict[str, int]] = {}
    for job, state, number in sorted(counted, key=lambda one: (one[0], order.get(one[1], len(order)))):
        if number:
            totals.setdefault(job, {})[state] = totals.get(job, {}).get(state, 0) + number
    return totals


def _means(measured: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for series in measured:
        for name, value in series.items():
            found.setdefault(name, []).append(value)
    return {name: mean for name in sorted(found) if (mean := _mean(found[name])) is not None}


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean; None where there are none, or where their sum is beyond a float."""
    try:
        mean = fmean(values) if values else None
    except OverflowError:
        return None
    return mean if mean is not None and math.isfinite(mean) else None


def _percentile(ascending: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile: the least value that at least this share is not above."""
    return ascending[math.ceil(share * len(ascending)) - 1] if ascending else None
