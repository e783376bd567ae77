"""Reads how a scope of several hosts stands, from its PostgreSQL; only there, and then by every tick."""

import json
from datetime import datetime, timedelta
from typing import cast

from orchestration.pulse.scope import CLOCK_OFF, HostLine, Running, Scope
from orchestration.scope.lease import Lease
from orchestration.store.instants import from_text, from_text_or_none
from orchestration.store.port import Database, Row


def read(db: Database, silent_after: timedelta, *, everyone: bool = True) -> Scope | None:
    """Return it; None before the scope's first tick.

    Args:
        everyone: with every host, also while another leads; else only with those that this host has to do with.
    """
    silent, off = silent_after.total_seconds(), CLOCK_OFF.total_seconds()
    for row in db.rows("scope.look", everyone=int(everyone), silent=silent, clock_off=off):
        return _scope(row, silent_after)
    return None


def cycles_ended(db: Database) -> dict[tuple[str, str], float]:
    """Return the counters of cycles that ended, over all hosts, as the metrics of one host have them."""
    name = "kloros_cycles_total"
    return {(name, str(row["labels"])): cast("float", row["value"]) for row in db.rows("scope.cycles_ended")}


def _scope(row: Row, silent_after: timedelta) -> Scope:
    lease = Lease(
        now=from_text(cast("str", row["now"])),
        holder=cast("str", row["holder"]),
        epoch=cast("int", row["epoch"]),
        since=_instant(row, "since"),
        expires_at=_instant(row, "expires_at"),
        pinned_to=cast("str", row["pinned_to"]),
        yielded_by=cast("str", row["yielded_by"]),
        yielded_until=_instant(row, "yielded_until"),
    )
    return Scope(
        name=cast("str", row["scope"]),
        here=cast("str", row["here"]),
        lease=lease,
        renewed_at=_instant(row, "renewed_at"),
        silent_after=silent_after,
        hosts=tuple(
            HostLine(host, role, release, from_text_or_none(ticked), exit_code, offset)
            for host, role, release, ticked, exit_code, offset in json.loads(cast("str", row["hosts"]))
        ),
        running=tuple(Running(*counted) for counted in json.loads(cast("str", row["running"]))),
        known=cast("int", row["known"]),
        shared=tuple((name, value) for name, value in json.loads(cast("str", row["shared"]))),
    )


def _instant(row: Row, column: str) -> datetime | None:
    return from_text_or_none(cast("str | None", row[column]))
