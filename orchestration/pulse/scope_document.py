"""A scope on the wire: the part `scope` of `loop_health` and of `klorosctl status --json`. Pure.

The form is in docs/reference/loop-health.md. Instants are the database server's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from orchestration.pulse import scope as seen
from orchestration.pulse.scope import HostLine, Scope
from orchestration.scope.lease import Lease, remaining
from orchestration.store.instants import to_text


def as_json(scope: Scope) -> dict[str, Any]:
    """Write how a scope stands; JSON-serializable as it is."""
    lease, leader = scope.lease, seen.leader(scope)
    return {
        "name": scope.name,
        "here": scope.here,
        "now": to_text(lease.now),
        "leader": leader or None,
        "leads_since": to_text(lease.since) if leader and lease.since is not None else None,
        "told_by": seen.speaker(scope) or None,
        "lease": {
            "holder": lease.holder or None,
            "epoch": lease.epoch,
            "renewed_at": _text(scope.renewed_at),
            "expires_at": _text(lease.expires_at),
            "age": None if scope.renewed_at is None else (lease.now - scope.renewed_at).total_seconds(),
            "remaining": _remaining(lease),
            "pinned_to": lease.pinned_to or None,
            "yielded_by": lease.yielded_by or None,
            "yielded_until": _text(lease.yielded_until),
        },
        "silent_after": scope.silent_after.total_seconds(),
        "hosts": [_host(scope, line) for line in scope.hosts],
        "cycles": [one._asdict() for one in scope.running],
    }


def _host(scope: Scope, line: HostLine) -> dict[str, Any]:
    return {
        "host": line.host,
        "role": seen.role(scope, line),
        "release": line.release,
        "last_tick_at": _text(line.last_tick_at),
        "last_tick_exit": line.last_tick_exit,
        "clock_offset": line.clock_offset,
    }


def _remaining(lease: Lease) -> float | None:
    return max(remaining(lease).total_seconds(), 0.0) if lease.holder else None


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else to_text(instant)
