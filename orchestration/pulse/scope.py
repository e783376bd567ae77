"""A scope as it is seen: who leads and who stands by, which hosts are silent, whose clock is wrong, what runs where. Pure.

Every instant is the server's, `now` included, so that no host's clock decides what is late. `scope_rows.py` reads it, from a
PostgreSQL only; a host alone imports none of this.

All hosts of a scope share a store, so each sees what concerns the scope; one of them tells people (`speaker`): whoever
leads, and while nobody does, the first by name of those that tick.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from orchestration.exits import Exit
from orchestration.pulse.evidence import TICKS_MISSED
from orchestration.pulse.judgement import Condition, Judgement, span, worst
from orchestration.scope.lease import Lease, Standing, remaining, standing

CLOCK_OFF = timedelta(seconds=10)
"""A clock that is kept right is right to some milliseconds. Leases are counted by the server's, and ticks go by it where
the host's is wrong, so nothing is decided twice or at a wrong hour; log lines and commands are as wrong as it is."""
_NAMED = 3
"""Hosts that a sentence names."""

SHARED = frozenset(
    {
        Condition.NOBODY_LEADS,
        Condition.PHASE_FAILING,
        Condition.PHASE_MISSED,
        Condition.DREAM_FAILING,
        Condition.CYCLE_OVERDUE,
        Condition.CYCLE_LOST,
        Condition.HOST_SILENT,
        Condition.CLOCK_OFFSET,
        Condition.PHASE_DURATION,
        Condition.PROMOTIONS_PARKED,
        Condition.PROMOTIONS_PILING_UP,
        Condition.ESCROW_WAITING,
        Condition.BASELINE_ROLLED_BACK,
        Condition.INTENTS_OVERFLOWING,
        Condition.URGENT_ALERT,
    }
)
"""What concerns the scope. Every other condition is of the host that finds it."""


class HostLine(NamedTuple):
    """One host of a scope."""

    host: str
    role: str  # at its last tick: leader, standby
    release: str
    last_tick_at: datetime | None  # by the server's clock
    last_tick_exit: int | None
    clock_offset: float | None  # seconds that its clock was ahead of the server's at that tick


class Running(NamedTuple):
    """How many cycles are queued or run on a host, or anywhere."""

    host: str  # empty: queued, and no host has taken it
    executor: str
    state: str
    number: int


class Scope(NamedTuple):
    """How a scope stands, seen from one of its hosts."""

    name: str
    here: str
    lease: Lease
    renewed_at: datetime | None
    silent_after: timedelta
    hosts: tuple[HostLine, ...]  # by name; maybe not those that are well and stand by
    running: tuple[Running, ...]
    known: int  # how many hosts there are
    shared: tuple[tuple[str, float], ...] = ()  # gauges that only a leader's tick knows: as the newest leader told them


def leader(scope: Scope) -> str:
    """Return the host that leads; empty: none does."""
    return scope.lease.holder if remaining(scope.lease) > timedelta(0) else ""


def leads_here(scope: Scope) -> bool:
    """Tell whether the host that looks leads."""
    return standing(scope.lease, scope.here) is Standing.OURS


def role(scope: Scope, line: HostLine) -> str:
    """Return what a host is now: leader, standby, off, silent."""
    if line.host == leader(scope):
        return "leader"
    if is_off(line):
        return "off"
    return "silent" if is_silent(scope, line) else "standby"


def is_off(line: HostLine) -> bool:
    """Tell whether a person switched a host's ticks off: nobody has to be told that it does not tick."""
    return line.last_tick_exit in (Exit.DISABLED, Exit.HALTED)


def is_silent(scope: Scope, line: HostLine) -> bool:
    """Tell whether a host that is to tick has been without one for too long."""
    if is_off(line):
        return False
    return line.last_tick_at is None or scope.lease.now - line.last_tick_at > scope.silent_after


def is_clock_off(line: HostLine) -> bool:
    """Tell whether a host's clock is wrong."""
    return line.clock_offset is not None and abs(line.clock_offset) > CLOCK_OFF.total_seconds()


def speaker(scope: Scope) -> str:
    """Return the host that tells people what concerns all of the scope; empty: none that ticks is known."""
    ticking = (one.host for one in scope.hosts if one.last_tick_at and scope.lease.now - one.last_tick_at <= TICKS_MISSED)
    return leader(scope) or next(ticking, "")


def is_told_elsewhere(scope: Scope) -> bool:
    """Tell whether another host tells what concerns the scope. Nobody is trusted to who is not known to tick."""
    return speaker(scope) not in ("", scope.here)


def told_here(judgement: Judgement) -> Judgement:
    """Leave out of a judgement what another host tells; the verdict is that of what is left."""
    causes = tuple(cause for cause in judgement.causes if cause.condition not in SHARED)
    return judgement._replace(verdict=worst(list(causes)), causes=causes)


def findings(scope: Scope) -> tuple[tuple[Condition, datetime | None, str], ...]:
    """Return what a person has to know of the scope: condition, since when where that is known, evidence."""
    found = (_nobody_leads(scope), _host_silent(scope), _clock_offset(scope))
    return tuple(one for one in found if one is not None)


def _nobody_leads(scope: Scope) -> tuple[Condition, datetime | None, str] | None:
    if leader(scope):
        return None
    lease = scope.lease
    if lease.holder and lease.expires_at is not None:
        told = f"no host leads, so nothing is decided: the lease of {lease.holder} ended {_ago(scope, lease.expires_at)}"
    else:
        told = "no host leads, so nothing is decided: nobody has the lease"
    if lease.pinned_to:
        pinned = next((one for one in scope.hosts if one.host == lease.pinned_to), None)
        ticked = "has never ticked" if pinned is None or pinned.last_tick_at is None else _last_ticked(scope, pinned)
        told += f"; it is pinned to {lease.pinned_to}, which {ticked}"
    return Condition.NOBODY_LEADS, lease.expires_at if lease.holder else scope.renewed_at, told


def _host_silent(scope: Scope) -> tuple[Condition, datetime | None, str] | None:
    silent = [one for one in scope.hosts if is_silent(scope, one)]
    if not silent:
        return None
    named = [f"{one.host} {_last_ticked(scope, one)}" for one in silent]
    since = min((one.last_tick_at for one in silent if one.last_tick_at is not None), default=None)
    return Condition.HOST_SILENT, since, f"{_some(named)} ({len(silent)} of {_hosts(scope.known)})"


def _clock_offset(scope: Scope) -> tuple[Condition, datetime | None, str] | None:
    wrong = [one for one in scope.hosts if is_clock_off(one) and not is_silent(scope, one)]
    if not wrong:
        return None
    named = [f"the clock of {one.host}{_in_the_lead(scope, one)} is {ahead(one.clock_offset)}" for one in wrong]
    return Condition.CLOCK_OFFSET, None, f"{_some(named)} the database server's"


def _in_the_lead(scope: Scope, line: HostLine) -> str:
    return ", which leads," if line.host == leader(scope) else ""


def ahead(offset: float | None) -> str:
    """Write by how much a clock is ahead of, or behind, another."""
    seconds = abs(offset or 0.0)
    much = span(timedelta(seconds=seconds)) if seconds >= 120 else f"{seconds:.3g} s"
    return f"{much} {'behind' if (offset or 0.0) < 0 else 'ahead of'}"


def signed(offset: float) -> str:
    """Write an offset of a clock to a millisecond, with its sign; a positive one is ahead."""
    return f"{round(offset, 3) + 0.0:+.3f} s"  # adding takes the sign from a zero


def _last_ticked(scope: Scope, line: HostLine) -> str:
    if line.last_tick_at is None:
        return "has never ticked"
    return f"last ticked {_ago(scope, line.last_tick_at)}"


def _ago(scope: Scope, instant: datetime) -> str:
    age = max(scope.lease.now - instant, timedelta(0))
    return f"{span(age)} ago" if age >= timedelta(minutes=1) else f"{age.total_seconds():.0f} s ago"


def _some(named: list[str]) -> str:
    rest = len(named) - _NAMED
    return ", ".join(named[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _hosts(number: int) -> str:
    return f"{number} host{'' if number == 1 else 's'}"
