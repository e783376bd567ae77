"""What the settings allow in waking, and what a host can do for an agent: values for `policy.py`. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from orchestration.bridge.wake.state import Way
from orchestration.cycles.backoff import Backoff

MAX_PROMPT = 8 * 1024
"""Bytes of UTF-8 that a prompt has at most, whatever way it goes."""


_STEPS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(minutes=30))


class Limits(NamedTuple):
    """The values of `[wake]`; the settings say what each one is for."""

    interval: timedelta = timedelta(seconds=5)
    lease: timedelta = timedelta(seconds=30)
    cooldown: timedelta = timedelta(seconds=5)
    attempts_per_minute: int = 10
    fresh_within: timedelta = timedelta(seconds=90)
    ack_within: timedelta = timedelta(seconds=8)
    retries: int = 2
    typing_within: timedelta = timedelta(seconds=20)
    defer_every: timedelta = timedelta(seconds=5)
    defer_at_most: timedelta = timedelta(seconds=60)
    resumes: int = 2
    resume_within: timedelta = timedelta(hours=12)
    failures: int = 3
    failures_within: timedelta = timedelta(minutes=15)
    spawns: int = 3
    backoff: Backoff = Backoff(_STEPS)
    unheeded: int = 5
    orphaned_after: timedelta = timedelta(minutes=15)


class Means(NamedTuple):
    """What this host can do for an agent: it has a profile for it, or at least a terminal of it."""

    ways: frozenset[Way] = frozenset(Way)
    turn_timeout: timedelta = timedelta(minutes=30)
    """After it the runner has ended a turn, so that one which nobody can tell about is over."""


IN_ITS_TERMINAL = Means(frozenset({Way.LIVE}))
"""Of an agent without a profile that lives in a terminal of this host."""
