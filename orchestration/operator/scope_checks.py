"""The checks of a host that shares its store: server, lease, this host's name and clock, its timer, the other hosts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import cast

from orchestration.host import clock as host_clock
from orchestration.operator import scope as words
from orchestration.operator.check import Check, Level
from orchestration.operator.console import Console
from orchestration.operator.screen import span
from orchestration.pulse import scope as seen
from orchestration.pulse import scope_rows
from orchestration.pulse.health import Condition
from orchestration.pulse.scope import HostLine, Scope
from orchestration.scope.leading import machine_id
from orchestration.store import opening
from orchestration.store.instants import from_text
from orchestration.store.port import Database
from orchestration.tick import history
from orchestration.tick.kernel import Kernel

BETWEEN_TICKS = timedelta(minutes=1)
"""As the timer has it (systemd/kloros-orchestrator.timer)."""


def checks(console: Console, kernel: Kernel) -> Iterator[Check]:
    """Check everything that a host needs to be one of several."""
    place = opening.place_of(console.settings)
    if not kernel.db.is_shared:  # the server has no tables yet, so nothing of it was asked
        yield Check("store", Level.OK, f"{place} has no tables yet; the first tick makes them")
        yield from _lengths(console)
        return
    before = host_clock.now()
    (server,) = kernel.db.rows("scope.server")
    round_trip = host_clock.now() - before
    offset = before + round_trip / 2 - from_text(cast("str", server["now"]))
    last = "".join(f", tick {one.tick} is the last" for one in history.recent(kernel.db, 1))
    told = f"{place} answers{last}: PostgreSQL {server['version']}, tables of version {server['schema']}"
    yield Check("store", Level.OK, told)
    yield from _durable(str(server["fsync"]), str(server["synchronous_commit"]))
    yield from _clock(offset, round_trip)
    yield from _lengths(console)
    ours = machine_id(console.settings.state_dir)
    yield from _name(place.here, str(server["machine_id"] or ""), ours, ticks=bool(server["ticks"]))
    yield from _hosts(console, kernel.db)


def _durable(fsync: str, synchronous_commit: str) -> Iterator[Check]:
    """Check that the server keeps what it has said is kept: else a decision could be made twice after it died."""
    lax = [
        f"{name} is off" for name, value in (("fsync", fsync), ("synchronous_commit", synchronous_commit)) if value == "off"
    ]
    if lax:
        evidence = f"{' and '.join(lax)}: what was decided may be forgotten when the server dies, and be decided again"
        yield Check("durability", Level.WARNING, evidence, f"in the server's postgresql.conf: {lax[0].split()[0]} = on")


def _clock(offset: timedelta, round_trip: timedelta) -> Iterator[Check]:
    """Check this host's clock against the server's; by more than a round trip can hide."""
    told = f"{seen.signed(offset.total_seconds())} from the database server's, within {round_trip.total_seconds() / 2:.3f} s"
    if abs(offset) - round_trip / 2 > seen.CLOCK_OFF:
        advice = (
            "have both kept right: apt install chrony; ticks go by the server's until then. docs/runbooks/clock-wrong.md"
        )
        yield Check("server clock", Level.WARNING, told, advice)
    else:
        yield Check("server clock", Level.OK, told)


def _lengths(console: Console) -> Iterator[Check]:
    """Check that a lease outlives the minute between two ticks, and silence a lease."""
    lease, silent = console.settings.scope.lease, console.settings.scope.silent_after
    if lease <= BETWEEN_TICKS:
        evidence = f"a lease of {span(lease)} ends before the next tick can renew it: the lead would change each minute"
        yield Check("lease length", Level.ERROR, evidence, "set [scope] lease (KLR_SCOPE_LEASE) to 65s or more")
    elif silent <= lease:
        evidence = f"silent_after is {span(silent)}, no longer than the lease: cycles of a host that restarts would be ended"
        yield Check("lease length", Level.WARNING, evidence, "set [scope] silent_after to 5min or more")
    else:
        yield Check("lease length", Level.OK, f"{span(lease)}, longer than the minute between two ticks")


def _name(here: str, machine: str, ours: str, *, ticks: bool) -> Iterator[Check]:
    """Check that no other machine ticks under this host's name."""
    if machine and machine != ours and ticks:
        advice = "set [scope] host (KLR_SCOPE_HOST) on one of the two; docs/runbooks/host-doubled.md"
        yield Check("host name", Level.ERROR, f"another machine ticks as {here!r} ({machine})", advice)
    elif here.partition(".")[0] == "localhost":
        advice = "set [scope] host (KLR_SCOPE_HOST), or the host name: hostnamectl hostname NAME"
        yield Check("host name", Level.WARNING, f"{here!r}, which every machine may be called", advice)
    else:
        yield Check("host name", Level.OK, here if machine else f"{here}; it has not ticked yet")


def _hosts(console: Console, db: Database) -> Iterator[Check]:
    scope = scope_rows.read(db, console.settings.scope.silent_after)
    if scope is None:
        yield Check("leader", Level.OK, "the scope has no lease yet; the first tick makes it")
        return
    yield _leader(scope)
    for line in scope.hosts:
        if seen.is_silent(scope, line):
            advice = f"on {line.host}: klorosctl doctor; if it is gone for good: klorosctl leader forget {line.host}"
            yield Check("host", Level.WARNING, f"{line.host} is silent: {words.ticked(scope, line)}", advice)
        elif seen.is_clock_off(line) and line.host != scope.here:
            told = f"the clock of {line.host} is {seen.ahead(line.clock_offset)} the database server's"
            yield Check("host", Level.WARNING, told, f"on {line.host}: timedatectl; docs/runbooks/clock-wrong.md")
    yield from _releases(scope.hosts)


def _leader(scope: Scope) -> Check:
    leader = seen.leader(scope)
    if leader:
        standbys = sum(seen.role(scope, line) == "standby" for line in scope.hosts)
        return Check("leader", Level.OK, f"{leader} leads {scope.name}; {standbys or 'no host'} stands by")
    found = {condition: evidence for condition, _, evidence in seen.findings(scope)}
    told = found.get(Condition.NOBODY_LEADS, "no host leads")
    return Check("leader", Level.WARNING, told, "the next tick of any host takes the lead; else: klorosctl leader show")


def _releases(hosts: tuple[HostLine, ...]) -> Iterator[Check]:
    found = sorted({line.release for line in hosts})
    if len(found) > 1:
        yield Check("releases", Level.OK, f"{', '.join(found)} side by side, as during an upgrade")
