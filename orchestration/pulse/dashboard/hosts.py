"""A scope as the page shows it: in words, hosts that want an eye first. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestration.pulse import scope as seen
from orchestration.pulse.scope import HostLine, Scope
from orchestration.scope.lease import remaining

SHOWN: Final = 20
"""Hosts that the served page lists; a file has room for a quarter of it."""
NOW: Final = {"leader": "leads", "standby": "stands by", "silent": "silent", "off": "switched off"}
_LOOKS: Final = {"leader": "ok", "standby": "ok", "silent": "failing", "off": "stopped"}
_FIRST: Final = ("silent", "leader", "off", "standby")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One row."""

    host: str
    now: str
    look: str  # the verdict as which it is drawn
    last_tick_at: datetime | None
    last_tick_exit: int | None
    clock: str | None
    clock_off: bool
    cycles: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the part of the page says."""

    name: str
    here: str
    leader: str
    leads_here: bool
    since: datetime | None
    epoch: int
    age: float | None  # seconds since the lease was renewed
    remaining: float  # seconds of the lease
    pinned_to: str
    yielded_by: str
    yielded_until: datetime | None
    hosts: tuple[Host, ...]
    shown: int
    unclaimed: int


def shown(scope: Scope | None, *, served: bool) -> Shown | None:
    """Write it for the page; None where a host is alone."""
    if scope is None:
        return None
    lease = scope.lease
    yields = lease.yielded_until is not None and lease.now < lease.yielded_until
    ordered = sorted(scope.hosts, key=lambda line: (_FIRST.index(seen.role(scope, line)), line.host))
    return Shown(
        name=scope.name,
        here=scope.here,
        leader=seen.leader(scope),
        leads_here=seen.leads_here(scope),
        since=lease.since,
        epoch=lease.epoch,
        age=None if scope.renewed_at is None else (lease.now - scope.renewed_at).total_seconds(),
        remaining=max(remaining(lease).total_seconds(), 0.0),
        pinned_to=lease.pinned_to,
        yielded_by=lease.yielded_by if yields else "",
        yielded_until=lease.yielded_until,
        hosts=tuple(_host(scope, line) for line in ordered),
        shown=SHOWN if served else SHOWN // 4,
        unclaimed=sum(one.number for one in scope.running if not one.host),
    )


def _host(scope: Scope, line: HostLine) -> Host:
    role = seen.role(scope, line)
    mine = [one for one in scope.running if one.host == line.host]
    return Host(
        host=line.host,
        now=NOW[role],
        look="degraded" if seen.is_clock_off(line) and _LOOKS[role] == "ok" else _LOOKS[role],
        last_tick_at=line.last_tick_at,
        last_tick_exit=line.last_tick_exit,
        clock=None if line.clock_offset is None else seen.signed(line.clock_offset),
        clock_off=seen.is_clock_off(line),
        cycles=", ".join(f"{one.number} {one.state}" + (f" ({one.executor})" * (one.executor != "local")) for one in mine),
    )
