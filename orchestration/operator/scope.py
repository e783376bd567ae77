"""What `klorosctl status` says of the scope that this host is one of; nothing where the host is alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from orchestration.operator.console import Console
from orchestration.operator.screen import span
from orchestration.pulse import scope as seen
from orchestration.pulse.scope import HostLine, Scope
from orchestration.scope.lease import remaining

_HOSTS = 20
"""Hosts that are listed; of more, those that want an eye first."""
_URGENT = {"silent": 0, "leader": 1, "off": 2, "standby": 3}


def lines(console: Console, scope: Scope | None) -> Iterator[str]:
    """Write who leads, what this host is, and every host."""
    if scope is None:
        return
    yield from console.screen.field("Scope", *_lease(console, scope))
    listed = sorted(scope.hosts, key=lambda line: (_URGENT[seen.role(scope, line)], line.host))[:_HOSTS]
    for line in listed:
        yield from console.screen.wrap(_host(scope, line), first=" " * 11 + "- ", rest=" " * 13)
    if len(scope.hosts) > _HOSTS:
        yield f"{' ' * 11}and {len(scope.hosts) - _HOSTS} more: klorosctl leader show"
    yield from console.screen.wrap(_cycles(scope), first=" " * 11, rest=" " * 13) if scope.running else ()


def _lease(console: Console, scope: Scope) -> Iterator[str]:
    lease, leader, times = scope.lease, seen.leader(scope), console.times
    if leader and lease.since is not None:
        led = f"{scope.name}: {leader} leads, since {times.both(lease.since)} (epoch {lease.epoch})"
        left = f"its lease ends in {span(remaining(lease))} unless it is renewed"
        yield led
        yield left + ("" if scope.renewed_at is None else f"; renewed {span(lease.now - scope.renewed_at)} ago")
    else:
        yield f"{scope.name}: no host leads, so nothing is decided (epoch {lease.epoch})"
    if lease.pinned_to:
        yield f"pinned to {lease.pinned_to}: no other host may lead; klorosctl leader unpin"
    if lease.yielded_until is not None and lease.now < lease.yielded_until:
        yield f"{lease.yielded_by} yielded, and leaves it to others until {times.both(lease.yielded_until)}"


def _host(scope: Scope, line: HostLine) -> str:
    here = " (this host)" if line.host == scope.here else ""
    parts = [f"{line.host}{here}: {WORDS[seen.role(scope, line)]}", ticked(scope, line)]
    if line.last_tick_exit:
        parts.append(f"exit {line.last_tick_exit}")
    parts.append(clock(line))
    return ", ".join([*parts, f"release {line.release}"])


WORDS = {"leader": "leads", "standby": "stands by", "silent": "SILENT", "off": "switched off"}


def ticked(scope: Scope, line: HostLine) -> str:
    """Write when a host last ticked."""
    if line.last_tick_at is None:
        return "has never ticked"
    return f"ticked {span(max(scope.lease.now - line.last_tick_at, timedelta(0)))} ago"


def clock(line: HostLine) -> str:
    """Write how a host's clock stands against the server's."""
    if line.clock_offset is None:
        return "clock unknown"
    wrong = " WRONG" if seen.is_clock_off(line) else ""
    return f"clock{wrong} {seen.signed(line.clock_offset)}"


def _cycles(scope: Scope) -> str:
    return "cycles: " + ", ".join(
        f"{one.number} {one.state}{f' on {one.host}' if one.host else ', no host has them yet'} ({one.executor})"
        for one in scope.running
    )
