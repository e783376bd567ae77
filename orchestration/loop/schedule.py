"""Which goal is next, and how long the loop waits. Pure: chance comes from the seed and the iteration's number."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from orchestration.cycles.backoff import Backoff


class Pace(NamedTuple):
    """How the loop waits: `sleep` after any iteration, after failures at least `backoff`, jitter (0 to 1) on top."""

    sleep: timedelta
    backoff: Backoff
    longest: timedelta  # cap of a wait for a failure; a longer `sleep` stands
    jitter: float
    seed: int

    def after(self, failures: int, *, iteration: int) -> timedelta:
        """Return the wait after an iteration that was the `failures`-th failure in a row (0: it was none)."""
        step = self.backoff.after(failures) * (1 + self.jitter * _chance(self.seed, "jitter", iteration))
        return max(self.sleep, min(step, self.longest))

    def resumed(self, ended_at: datetime, wait_until: datetime, *, now: datetime) -> datetime | None:
        """Return until when a loop that starts now goes on with the wait for an earlier one's failure; None when it is over.

        The wait was chosen then; the longest that is allowed now cuts it. A failure that ended in the future was written by
        a clock that has since been set back; it holds nothing up.
        """
        until = min(wait_until, ended_at + self.longest)
        return until if ended_at <= now < until else None


def next_goal(goals: Sequence[str], *, iteration: int, order: Literal["turn", "random"], seed: int) -> str:
    """Return the goal of an iteration (numbered from 1); empty when there are no goals."""
    if not goals:
        return ""
    if order == "turn":
        return goals[(iteration - 1) % len(goals)]
    return goals[int(_chance(seed, "goal", iteration) * len(goals))]


def goals_of(text: str) -> tuple[str, ...]:
    """Return the goals of a file: one a line, without empty lines and comments."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def words_of(command: Sequence[str], *, mode: str, goal: str) -> tuple[str, ...]:
    """Put mode and goal where the command has `{mode}` and `{goal}`; whatever they hold, each word stays one."""
    given = {"{mode}": mode, "{goal}": goal}
    return tuple(_filled(word, given) for word in command)


def _filled(word: str, given: dict[str, str]) -> str:
    before, mark, rest = word, "", ""
    for name in given:
        head, found, tail = word.partition(name)
        if found and (not mark or len(head) < len(before)):
            before, mark, rest = head, name, tail
    return before + given[mark] + _filled(rest, given) if mark else word


def _chance(seed: int, what: str, iteration: int) -> float:
    """Return a number in [0, 1) that the seed and the iteration decide."""
    digest = hashlib.sha256(f"{seed}:{what}:{iteration}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
