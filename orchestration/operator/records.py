"""Cycles and ticks as rows and as JSON, the same in every command."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from orchestration.cycles.cycle import Cycle, Executor
from orchestration.operator.console import Console
from orchestration.operator.screen import span


def cycle_json(cycle: Cycle) -> dict[str, Any]:
    """Write a cycle for `--json`; its token is its own business."""
    document = cycle._asdict()
    del document["token"]
    document["origin"] = cycle.origin.told()
    document["result"] = None if cycle.result is None else cycle.result._asdict()
    document["timeout_seconds"] = document.pop("timeout").total_seconds()
    return document


def cycle_rows(console: Console, cycles: Iterable[Cycle]) -> list[str]:
    """Write cycles as a table, newest first."""
    rows = []
    for cycle in cycles:
        local, _ = console.times.columns(cycle.started_at or cycle.queued_at)
        why = cycle.origin.cause if cycle.result is None else f"{cycle.origin.cause}; {cycle.result.reason}"
        rows.append((str(cycle.cycle), str(cycle.job), str(cycle.state), local, took(cycle, console.now), why))
    return console.screen.table(("CYCLE", "JOB", "STATE", "STARTED", "TOOK", "CAUSE; RESULT"), rows)


def took(cycle: Cycle, now: datetime) -> str:
    """Write how long a cycle ran, or has run so far."""
    return "" if cycle.started_at is None else span((cycle.ended_at or now) - cycle.started_at)


def elapsed(cycle: Cycle, now: datetime, waits: str = "") -> str:
    """Write how much of its time an active cycle has used; `waits` says for what it waits, or where it runs."""
    if cycle.started_at is None:
        who = "Slurm has not begun it" if cycle.executor is Executor.SLURM else "no runner has it yet"
        return f"for {span(now - cycle.queued_at)}, {waits or who}"
    asked = ", asked to end" if cycle.cancel_asked_at is not None else ""
    return f"{span(now - cycle.started_at)} of {span(cycle.timeout)}{asked}" + (f", {waits}" if waits else "")
