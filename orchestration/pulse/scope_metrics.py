"""The metrics of a scope of several hosts; there are none on a host alone. Pure.

Every host tells who leads, the lease, and what concerns itself. What concerns the others is told by one host
(`scope.speaker`), so that a thousand hosts make some thousand series, not a million. Labels are names of hosts, executors
and states; `MOST_HOSTS` hosts at most are told, those without a tick for longest first.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from orchestration.pulse import scope as seen
from orchestration.pulse.metrics import Family, Values
from orchestration.pulse.scope import HostLine, Scope

MOST_HOSTS: Final = 1000
ROLES: Final = ("leader", "standby", "off", "silent")
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

FAMILIES: Final = (
    Family("kloros_scope_info", "gauge", "Always 1; the labels say the scope, and the name of this host in it.", ()),
    Family(
        "kloros_scope_leader",
        "gauge",
        "1 while the host that the label names leads, 0 when its lease has ended and nobody took it.",
        (),
    ),
    Family("kloros_scope_leading", "gauge", "1 while this host leads, else 0.", (("kloros_scope_leading", ""),)),
    Family(
        "kloros_scope_epoch",
        "gauge",
        "How often the lease was taken; each taking makes one more.",
        (("kloros_scope_epoch", ""),),
    ),
    Family(
        "kloros_scope_leader_since_timestamp_seconds",
        "gauge",
        "Since when the leader leads; 0 while none does.",
        (("kloros_scope_leader_since_timestamp_seconds", ""),),
    ),
    Family(
        "kloros_scope_lease_renewed_timestamp_seconds",
        "gauge",
        "When the lease was last taken or renewed; 0 while nobody has it.",
        (("kloros_scope_lease_renewed_timestamp_seconds", ""),),
    ),
    Family(
        "kloros_scope_lease_expires_timestamp_seconds",
        "gauge",
        "When the lease ends unless it is renewed; 0 while nobody has it.",
        (("kloros_scope_lease_expires_timestamp_seconds", ""),),
    ),
    Family(
        "kloros_scope_hosts",
        "gauge",
        "Hosts of the scope, by what they are now. Told by the leader.",
        (),
    ),
    Family(
        "kloros_scope_host_last_tick_timestamp_seconds",
        "gauge",
        "When a host last ticked, by the server's clock; 0: never. The leader tells it of all, others of themselves.",
        (),
    ),
    Family(
        "kloros_scope_clock_offset_seconds",
        "gauge",
        "How far a host's clock was ahead of the database server's at its last tick. The leader tells it of all hosts.",
        (),
    ),
    Family(
        "kloros_scope_cycles",
        "gauge",
        "Cycles that are queued or run, by host and executor; one that no host has yet has none. Told by the leader.",
        (),
    ),
)
"""Series whose labels are known beforehand are there at 0."""

LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    "kloros_scope_info": ("scope", "host"),
    "kloros_scope_leader": ("holder",),
    "kloros_scope_hosts": ("role",),
    "kloros_scope_host_last_tick_timestamp_seconds": ("host",),
    "kloros_scope_clock_offset_seconds": ("host",),
    "kloros_scope_cycles": ("host", "executor", "state"),
}


def note(values: Values, scope: Scope) -> None:
    """Put a scope's numbers among the others; gauges that only a leader knows are told alike by every host."""
    lease, leader = scope.lease, seen.leader(scope)
    for name, value in scope.shared:
        values[name, ""] = value
    values["kloros_scope_info", _labels(scope=scope.name, host=scope.here)] = 1.0
    values["kloros_scope_leader", _labels(holder=lease.holder)] = float(bool(leader))
    values["kloros_scope_leading", ""] = float(seen.leads_here(scope))
    values["kloros_scope_epoch", ""] = float(lease.epoch)
    values["kloros_scope_leader_since_timestamp_seconds", ""] = _seconds(lease.since if leader else None)
    values["kloros_scope_lease_renewed_timestamp_seconds", ""] = _seconds(scope.renewed_at)
    values["kloros_scope_lease_expires_timestamp_seconds", ""] = _seconds(lease.expires_at if lease.holder else None)
    for line in _told(scope):
        host = _labels(host=line.host)
        values["kloros_scope_host_last_tick_timestamp_seconds", host] = _seconds(line.last_tick_at)
        if line.clock_offset is not None:
            values["kloros_scope_clock_offset_seconds", host] = line.clock_offset
    if seen.is_told_elsewhere(scope):
        return
    roles = [seen.role(scope, line) for line in scope.hosts]
    for role in ROLES:
        values["kloros_scope_hosts", _labels(role=role)] = float(roles.count(role))
    for one in scope.running:
        labels = _labels(host=one.host, executor=one.executor, state=one.state)
        values["kloros_scope_cycles", labels] = float(one.number)


def _told(scope: Scope) -> Iterator[HostLine]:
    if seen.is_told_elsewhere(scope):
        yield from (line for line in scope.hosts if line.host == scope.here)
    else:
        yield from sorted(scope.hosts, key=lambda line: line.last_tick_at or _EVER)[:MOST_HOSTS]


def _labels(**labels: str) -> str:
    """Write labels of which a host's name is one: that may be anything."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _seconds(instant: datetime | None) -> float:
    return 0.0 if instant is None else instant.timestamp()
