"""Which type the next PHASE is to have, and what else it is advised: UCB1 over the types, learnt from the PHASEs before.

Pure. Owns the reward, the choice and the form of the hints; refuses to know where trials are recorded (`hints.py`).

    score = mean reward + 1.4 × √(ln trials of all types / trials of this type)

UCB1: P. Auer, N. Cesa-Bianchi, P. Fischer, "Finite-time Analysis of the Multiarmed Bandit Problem", Machine Learning 47
(2002), 235-256; its √2 is 1.4 here. A type that was never tried goes first; where scores are equal, the earlier type.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

EXPLORATION: Final = 1.4
LEAST: Final = 10  # hundredths of a pass weight
MOST: Final = 50
_STEADY: Final = 3  # PHASEs in a row in which a group succeeded, for less of it to do


class PhaseType(StrEnum):
    """What a PHASE may concentrate on, in the order in which equals are taken."""

    LIGHT = "LIGHT"  # a quick look at everything
    DEEP = "DEEP"  # everything thoroughly
    REM = "REM"  # what is new or has changed


class Fidelity(StrEnum):
    """How thoroughly to test."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


_FIDELITY: Final = {PhaseType.LIGHT: Fidelity.LOW, PhaseType.DEEP: Fidelity.HIGH, PhaseType.REM: Fidelity.MEDIUM}
_SHARE_OF_CORES: Final = {PhaseType.LIGHT: 0.25, PhaseType.DEEP: 1.0, PhaseType.REM: 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one PHASE was worth, each from 0 to 1; `of_phase` says what each is."""

    result_yield: float
    novelty: float
    promotion: float
    stability: float
    cost: float

    @property
    def reward(self) -> float:
        """Weigh the terms: from -0.05 to 0.95."""
        gained = 0.4 * self.result_yield + 0.2 * self.novelty + 0.2 * self.promotion + 0.15 * self.stability
        return gained - 0.05 * self.cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One PHASE that has ended, and what followed it until the next one."""

    cycle: int
    phase_type: PhaseType
    succeeded: bool
    groups: Mapping[str, str]  # status of each test group ("domain") of its report; empty without such a report
    wall_seconds: float | None  # None: it was lost
    timeout_seconds: float
    tried: int  # promotions that later D-REAM cycles were given
    accepted: int  # of these, those that came into the baseline
    followed: int  # cycles of any job that ended after it, but not cancelled ones
    followed_well: int  # of these, those that succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How often a type was tried, and the sum of its rewards."""

    trials: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float | None:
        """Return the mean reward; None before the first trial."""
        return self.total / self.trials if self.trials else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a PHASE is advised; `signals` is what the advice was made from."""

    phase_type: PhaseType
    workers_hint: int
    fidelity_hint: Fidelity
    test_group_overrides: Mapping[str, Fidelity]
    pass_weights: Mapping[str, float]  # share of each type's pass, 0.10 to 0.50, together 1
    rationale: str
    signals: Mapping[str, object]


def of_phase(past: Past, before: Past | None) -> Terms:
    """Work out what a PHASE was worth.

    - yield: the share of its test groups that came to an answer, succeeded or failed. Without groups: 1 when it succeeded.
    - novelty: the share of its groups whose answer is another than in the PHASE before, or was not there.
    - promotion: of the promotions tried before the next PHASE, the share that came into the baseline; 0 when none was tried.
    - stability: the share of it and the cycles after it, until the next PHASE, that succeeded.
    - cost: wall time by deadline; 1 for a lost one.
    """
    known = {} if before is None else before.groups
    names = answered(past.groups)
    return Terms(
        result_yield=_share(len(names), len(past.groups), without=float(past.succeeded)),
        novelty=_share(sum(known.get(name) != past.groups[name] for name in names), len(past.groups)),
        promotion=_share(past.accepted, past.tried),
        stability=_share(past.succeeded + past.followed_well, 1 + past.followed),
        cost=1.0 if past.wall_seconds is None else _share(past.wall_seconds, past.timeout_seconds),
    )


def answered(groups: Mapping[str, str]) -> list[str]:
    """Return the test groups that came to an answer, whatever it was."""
    return [name for name, status in groups.items() if status in ("succeeded", "failed")]


def terms(history: Iterable[Past]) -> list[tuple[Past, Terms]]:
    """Work out the worth of every PHASE, given oldest first."""
    found: list[tuple[Past, Terms]] = []
    for past in history:
        found.append((past, of_phase(past, found[-1][0] if found else None)))
    return found


def tally(worth: Iterable[tuple[Past, Terms]]) -> dict[PhaseType, Tally]:
    """Sum the rewards of each type."""
    sums = {phase_type: Tally() for phase_type in PhaseType}
    for past, one in worth:
        so_far = sums[past.phase_type]
        sums[past.phase_type] = Tally(trials=so_far.trials + 1, total=so_far.total + one.reward)
    return sums


def scores(tallies: Mapping[PhaseType, Tally]) -> dict[PhaseType, float]:
    """Return the UCB1 score of each type; infinite for one that was never tried."""
    trials = sum(one.trials for one in tallies.values())
    return {
        phase_type: math.inf if one.mean is None else one.mean + EXPLORATION * math.sqrt(math.log(trials) / one.trials)
        for phase_type, one in tallies.items()
    }


def choose(tallies: Mapping[PhaseType, Tally]) -> PhaseType:
    """Choose the type of the next PHASE."""
    found = scores(tallies)
    return max(PhaseType, key=lambda phase_type: found[phase_type])


def pass_weights(means: Mapping[PhaseType, float | None], chosen: PhaseType) -> dict[str, float]:
    """Share a PHASE among the passes: by mean reward (0.5 when unknown), the chosen type's doubled.

    Shared out are whole hundredths, first 10 to each, the rest in proportion and never more than 50 to one.
    """
    known = {one: 0.5 if (mean := means.get(one)) is None else mean for one in PhaseType}
    wanted = {one: max(0.01, mean) * (2 if one is chosen else 1) for one, mean in known.items()}
    given = dict.fromkeys(PhaseType, LEAST)
    for _ in range(100 - sum(given.values())):
        # the divisor method of D'Hondt: each hundredth goes where it is due most
        open_ = [one for one in PhaseType if given[one] < MOST]
        taker = max(open_, key=lambda one: wanted[one] / (given[one] - LEAST + 1))
        given[taker] += 1
    return {one.value: hundredths / 100 for one, hundredths in given.items()}


def advise(history: Iterable[Past], *, cores: int, more: Mapping[str, object]) -> Hints:
    """Make the hints of the next PHASE from those before, oldest first, and the number of cores.

    `more` goes into the signals as it is.
    """
    worth = terms(history)
    tallies = tally(worth)
    chosen, means = choose(tallies), {one: tallies[one].mean for one in PhaseType}
    return Hints(
        phase_type=chosen,
        workers_hint=max(1, math.floor(cores * _SHARE_OF_CORES[chosen])),
        fidelity_hint=_FIDELITY[chosen],
        test_group_overrides=_overrides([past for past, _ in worth], chosen),
        pass_weights=pass_weights(means, chosen),
        rationale=_rationale(tallies, chosen),
        signals={"cores": cores, "phases": len(worth), "types": _signals(tallies), **more},
    )


def of_group(document: Mapping[str, object], group: str) -> dict[str, str]:
    """Return what the default PHASE job tells a test group, out of the hints' document, as variables."""
    overrides = document.get("test_group_overrides")
    own = overrides.get(group) if isinstance(overrides, dict) else None
    told = {
        "KLR_PHASE_TYPE": document.get("phase_type"),
        "KLR_WORKERS": document.get("workers_hint"),
        "KLR_FIDELITY": own or document.get("fidelity_hint"),
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def _overrides(history: list[Past], chosen: PhaseType) -> dict[str, Fidelity]:
    """Test thoroughly what did not succeed last time, and a step less what has been steady."""
    last = history[-1].groups if history else {}
    usual = _FIDELITY[chosen]
    found = {name: Fidelity.HIGH if status != "succeeded" else usual for name, status in last.items()}
    if chosen is not PhaseType.LIGHT and len(history) >= _STEADY:
        steady = [n for n in last if all(past.groups.get(n) == "succeeded" for past in history[-_STEADY:])]
        found |= dict.fromkeys(steady, Fidelity.MEDIUM if chosen is PhaseType.DEEP else Fidelity.LOW)
    return {name: fidelity for name, fidelity in sorted(found.items()) if fidelity is not usual}


def _signals(tallies: Mapping[PhaseType, Tally]) -> dict[str, object]:
    found = scores(tallies)
    return {
        one.value: {
            "trials": tallies[one].trials,
            "mean_reward": _rounded(tallies[one].mean),
            "score": _rounded(found[one]),
        }
        for one in PhaseType
    }


def _rationale(tallies: Mapping[PhaseType, Tally], chosen: PhaseType) -> str:
    one, score = tallies[chosen], scores(tallies)[chosen]
    if one.mean is None:
        return f"{chosen} was never tried."
    best = max((other for other in PhaseType), key=lambda other: tallies[other].mean or -1.0)
    why = "the best so far" if best is chosen else f"tried less than {best} (mean {tallies[best].mean:.3f})"
    trials = "1 trial" if one.trials == 1 else f"{one.trials} trials"
    return f"{chosen} scores {score:.3f}: mean reward {one.mean:.3f} of {trials}, {why}."


def _rounded(number: float | None) -> float | None:
    return None if number is None or math.isinf(number) else round(number, 6)


def _share(part: float, whole: float, *, without: float = 0.0) -> float:
    return min(1.0, max(0.0, part / whole)) if whole > 0 else without
