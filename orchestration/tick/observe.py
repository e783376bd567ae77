"""Looks at the world and puts everything a decision may know into one `Observation`. Reads, changes nothing."""

from __future__ import annotations

import os

from orchestration.cycles import ledger
from orchestration.cycles.backoff import NO_FAILURES
from orchestration.cycles.cycle import Cause, Cycle, CycleState, Executor, JobName
from orchestration.intents.inbox import key_of
from orchestration.phase.window import Interval
from orchestration.tick import calendar
from orchestration.tick.kernel import Kernel
from orchestration.tick.observation import Observation
from orchestration.tick.take_in import Found

MAINTENANCE_FILE = "maintenance_mode"


def observe(kernel: Kernel, found: Found) -> Observation:
    """Return what is on disk and in the store now."""
    now = kernel.now()
    window = kernel.window.containing(now)
    attempts = [] if window is None else ledger.of_date(kernel.db, window.date)
    active = next(iter(ledger.exclusive(kernel.db)), None)
    return Observation(
        now=now,
        maintenance=os.path.exists(kernel.path(MAINTENANCE_FILE)),
        active=active,
        window=window,
        next_window=kernel.window.next_after(now),
        phase_done=window is not None and is_done(kernel, window, attempts),
        phase_failures=ledger.streak(attempts),
        missed=calendar.missed(kernel, now),
        promotions=found.promotions,
        parked=found.parked,
        left=tuple(key_of(one.name) for one in found.left),
        dream_failures=(
            ledger.failures_in_a_row(kernel.db, JobName.DREAM, Cause.PROMOTIONS) if found.promotions else NO_FAILURES
        ),
        intents=found.intents.pending,
        active_waits="" if active is None else waits(kernel, active),
    )


def waits(kernel: Kernel, active: Cycle) -> str:
    """Say what an active cycle waits for, or where it runs, when that is not told by this host alone."""
    if active.executor is Executor.SLURM:
        from orchestration.cycles.slurm import jobs

        return jobs.told(jobs.get(kernel.db, active.cycle))
    if not kernel.settings.database_url:
        return ""
    from orchestration.cycles import claims

    return claims.why_queued(kernel.db, active, kernel.settings) or (f"on {active.host}" if active.host else "")


def is_done(kernel: Kernel, window: Interval, attempts: list[Cycle]) -> bool:
    """Tell whether a date has its PHASE: a cycle of ours, or what was taken over from the older orchestrator."""
    if any(attempt.state is CycleState.SUCCEEDED for attempt in attempts):
        return True
    recorded = calendar.get(kernel.db, window.date)
    return recorded is not None and recorded.result is calendar.DateResult.SUCCEEDED
