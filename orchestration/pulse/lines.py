"""Cycles and ticks of the store as lists show them."""

from __future__ import annotations

from datetime import date, datetime
from typing import cast

from orchestration.cycles import telemetry
from orchestration.cycles.cycle import Cause, CycleState, JobName
from orchestration.pulse.loop_health import CycleLine, PhaseLine, TickLine
from orchestration.store.instants import from_text, from_text_or_none
from orchestration.store.port import Row
from orchestration.tick.calendar import PhaseDate
from orchestration.tick.history import Tick


def cycle_line(row: Row) -> CycleLine:
    """Read one row of the queries that give cycles for lists."""
    state = CycleState(cast("str", row["state"]))
    started, ended = _instant(row, "started_at"), _instant(row, "ended_at")
    series, damaged = telemetry.lasts(cast("str | None", row["telemetry"]))
    return CycleLine(
        cycle=cast("int", row["cycle"]),
        job=JobName(cast("str", row["job"])),
        state=state,
        cause=Cause(cast("str", row["cause"])),
        phase_date=None if row["phase_date"] is None else date.fromisoformat(cast("str", row["phase_date"])),
        queued_at=from_text(cast("str", row["queued_at"])),
        started_at=started,
        recorded_at=ended,
        seconds=seconds_of(state, started, ended),
        timeout_seconds=cast("float", row["timeout_seconds"]),
        reason=cast("str | None", row["reason"]) or "",
        series=series,
        damaged_lines=damaged,
    )


def seconds_of(state: CycleState, started: datetime | None, ended: datetime | None) -> float | None:
    """Return how long a cycle took; None of one that never started, and of a lost one: nobody knows when that ended."""
    if started is None or ended is None or state is CycleState.LOST:
        return None
    return max(0.0, (ended - started).total_seconds())


def tick_line(tick: Tick) -> TickLine:
    """Shorten a tick to a line."""
    return TickLine(
        tick=tick.tick,
        tick_id=tick.tick_id,
        started_at=tick.started_at,
        decision=tick.decision,
        exit_code=int(tick.exit),
        cycle=tick.cycle,
        findings=tick.findings,
    )


def phase_line(day: PhaseDate) -> PhaseLine:
    """Write an accounted date as a line."""
    return PhaseLine(**day._asdict())


def _instant(row: Row, column: str) -> datetime | None:
    return from_text_or_none(cast("str | None", row[column]))
