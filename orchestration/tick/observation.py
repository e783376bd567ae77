"""Everything a decision may know, as one frozen value. Pure: who looks at the world is `observe.py`."""

from datetime import datetime
from typing import NamedTuple

from orchestration.cycles.backoff import Backoff, Failures
from orchestration.cycles.cycle import Cycle
from orchestration.intents.intent import PendingIntent
from orchestration.phase.window import Interval


class Policy(NamedTuple):
    """What the settings say about deciding."""

    phase_backoff: Backoff
    dream_backoff: Backoff


class Observation(NamedTuple):
    """The world as one tick saw it; every instant is aware UTC."""

    now: datetime
    maintenance: bool
    active: Cycle | None  # the exclusive cycle: queued, running, or ended and to be settled by the next tick
    window: Interval | None  # the PHASE window that `now` is in
    next_window: Interval
    phase_done: bool  # the local date of `window` has its PHASE
    phase_failures: Failures  # of that date
    missed: Interval | None  # a closed window that the settings want made up for
    promotions: tuple[str, ...]  # stems of the valid, unacked ones that are not parked
    parked: tuple[str, ...]  # stems
    left: tuple[str, ...]  # names of promotion files that can't be read yet
    dream_failures: Failures  # of cycles for promotions
    intents: tuple[PendingIntent, ...]  # those that start something, first the one to serve first
    active_waits: str = ""  # for whom or what `active` waits, or where it runs, if that is not this host alone
