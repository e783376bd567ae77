"""The tick: one short pass that looks at the world, decides, acts, records, and ends.

Read `tick` and you have read the program. It holds its lock for the decision only; the work it starts runs outside, and a
later tick settles it. Every stage looks at what is on disk and in the store now, so a tick that was missed, doubled or
killed at any instruction changes nothing in the end.
"""

import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, assert_never

from orchestration import configuration
from orchestration.cycles import ledger
from orchestration.cycles.cycle import CycleNumber, Executor, JobName, Origin
from orchestration.cycles.job import job
from orchestration.errors import KlorosError, StoreUnreachable
from orchestration.exits import Exit
from orchestration.host.journal import Event, Priority, log
from orchestration.store.counters import count, gauges
from orchestration.store.counters import observe as observe_value
from orchestration.store.instants import to_text
from orchestration.tick import calendar, history, take_in
from orchestration.tick.decision import Decision, DreamCycle, Noop, Phase, Reflection, blocking, decide, phase_blocker
from orchestration.tick.history import Tick
from orchestration.tick.kernel import Kernel
from orchestration.tick.observation import Observation
from orchestration.tick.observe import observe
from orchestration.tick.prune import prune
from orchestration.tick.reap import reap
from orchestration.tick.settle import settle
from orchestration.tick.take_in import Found

_IN_ANY_CASE = timedelta(hours=1)  # is asked as often as this, whatever happens
DURATION_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 50.0)


class Decided(StrEnum):
    """What a tick did, in one word: in the store, the files and the metrics."""

    PHASE = "phase"
    DREAM_CYCLE = "dream_cycle"
    REFLECTION = "reflection"
    NOOP = "noop"


class Outcome(NamedTuple):
    """What acting on the decision did."""

    decision: Decided
    cycle: CycleNumber | None


def tick(kernel: Kernel, tick_id: str, *, patience: float = 0.0) -> Tick:
    """Do one tick and return its record; `patience` is how many seconds it may wait for another one to end.

    Raises:
        LockHeld: another tick is at work.
        StoreUnreachable, Unwritable: nothing was decided, or a file that waits for the next tick stands in nobody's way.
    """
    if kernel.leading is not None:  # of several hosts only one decides
        from orchestration.tick.scoped import tick_of_host

        return tick_of_host(kernel, tick_id, patience=patience)
    with kernel.lock.held(tick_id, patience=patience):
        return lead(kernel, tick_id)


def lead(kernel: Kernel, tick_id: str) -> Tick:
    """Do what a tick does, under the lock."""
    started_at = kernel.now()
    reap(kernel)
    settle(kernel)
    watch(kernel)
    found = take_in.take_in(kernel)
    seen = observe(kernel, found)
    decision = decide(seen, kernel.policy)
    with kernel.db.transaction():
        if kernel.leading is not None:
            seen, decision = _still(kernel, seen, decision)
        outcome = act(kernel, found, decision, tick_id)
        missed = calendar.account(kernel, seen.now)
        record = _record(kernel, seen, decision, outcome, tick_id, started_at)
        _note_gauges(kernel, found)
    _tell_missed(missed)
    if not launch(kernel):
        record = history.failed(kernel.db, record, Exit.FAILED)
    try:
        take_in.file_away(kernel, found)
    except KlorosError as error:
        history.failed(kernel.db, record, error.exit)
        raise
    finally:
        prune(kernel)
        kernel.publish()
    return record


def watch(kernel: Kernel) -> None:
    """Ask the observer's rules when something happened that they could count, or an instant has come; else one query.

    Intents that can't be written are told, and hold up nobody; the next tick tries again.
    """
    now = kernel.now()
    rows = kernel.db.rows("facts.get", name="observer.due")
    # not so when the clock was set back
    rests = rows and to_text(now) < str(rows[0]["value"]) <= to_text(now + _IN_ANY_CASE)
    if rests and configuration.is_remembered(kernel.settings):
        return
    from orchestration.tick import observer

    try:
        observer.look(kernel)
    except StoreUnreachable:
        raise
    except KlorosError as error:
        log(Event.OBSERVER_HELD, f"an intent of the observer is held: {error}", priority=Priority.ERROR)


def act(kernel: Kernel, found: Found, decision: Decision, tick_id: str) -> Outcome:
    """Queue the cycle that was decided on, if any, with the intent that asked for it. Inside a transaction."""
    match decision:
        case Phase():
            return Outcome(Decided.PHASE, _enqueue(kernel, found, decision, JobName.PHASE, tick_id))
        case DreamCycle():
            return Outcome(Decided.DREAM_CYCLE, _enqueue(kernel, found, decision, JobName.DREAM, tick_id))
        case Reflection():
            return Outcome(Decided.REFLECTION, _enqueue(kernel, found, decision, JobName.REFLECTION, tick_id))
        case Noop():
            return Outcome(Decided.NOOP, None)
        case _:
            assert_never(decision)


def _enqueue(
    kernel: Kernel, found: Found, decision: Phase | DreamCycle | Reflection, name: JobName, tick_id: str
) -> CycleNumber:
    promotions = decision.promotions if isinstance(decision, DreamCycle) else ()
    cycle = ledger.enqueue(
        kernel.db,
        job=job(name, kernel.settings),
        origin=Origin(decision.cause, tick_id, promotions, decision.topic, decision.intent),
        token=os.urandom(16).hex(),
        now=kernel.now(),
        phase_date=decision.phase_date if isinstance(decision, Phase) else None,
    )
    if decision.intent:
        take_in.note_started(kernel, found, decision.intent, cycle)
    return cycle


def _record(
    kernel: Kernel, seen: Observation, decision: Decision, outcome: Outcome, tick_id: str, started_at: datetime
) -> Tick:
    record = Tick(
        tick_id=tick_id,
        started_at=started_at,
        ended_at=kernel.now(),
        boot_id=kernel.boot_id,
        decision=outcome.decision,
        exit=Exit.DONE,
        cycle=outcome.cycle,
        blocker=phase_blocker(seen, decision),
        findings=history.plain(decision.findings),
    )
    reasons = [found.reason for found in blocking(decision.findings)] if isinstance(decision, Noop) else []
    return note(kernel, record, reasons)


def _still(kernel: Kernel, seen: Observation, decision: Decision) -> tuple[Observation, Decision]:
    """Decide again when another host's loop has queued a cycle since we looked: our lock keeps off only this host's."""
    if isinstance(decision, Noop) or not (others := ledger.exclusive(kernel.db)):
        return seen, decision
    seen = seen._replace(active=others[0])
    return seen, decide(seen, kernel.policy)


def note(kernel: Kernel, record: Tick, reasons: Iterable[str]) -> Tick:
    """Store a tick's record, count it, and each reason for which it started nothing. Must run inside a transaction."""
    record = history.append(kernel.db, record)
    count(kernel.db, "kloros_orchestrator_ticks_total", decision=record.decision)
    for reason in reasons:
        count(kernel.db, "kloros_orchestrator_skipped_total", reason=reason)
    seconds = max(0.0, (record.ended_at - record.started_at).total_seconds())
    observe_value(kernel.db, "kloros_orchestrator_tick_duration_seconds", seconds, buckets=DURATION_BUCKETS)
    at = record.ended_at.timestamp()
    gauges(
        kernel.db,
        kloros_orchestrator_last_tick_timestamp_seconds=at,
        kloros_orchestrator_last_attempt_timestamp_seconds=at,
    )
    return record


def _note_gauges(kernel: Kernel, found: Found) -> None:
    gauges(
        kernel.db,
        kloros_promotions_unacked=len(found.promotions) + len(found.left),
        kloros_promotions_parked=len(found.parked),
        kloros_promotions_oldest_timestamp_seconds=_oldest(kernel, found),
    )


def _oldest(kernel: Kernel, found: Found) -> float:
    """Since when (seconds since 1970) the oldest promotion waits; 0 when none does."""
    if not found.promotions:
        return 0.0
    from orchestration.promotions import ledger as promotions

    first_seen_at = promotions.oldest(kernel.db, found.promotions)
    return 0.0 if first_seen_at is None else first_seen_at.timestamp()


def _tell_missed(dates: list[calendar.PhaseDate]) -> None:
    """Say that a window closed without a PHASE: one line, also after weeks of downtime."""
    if not dates:
        return
    last = dates[-1]
    before = f", nor have {len(dates) - 1} dates before it" if len(dates) > 1 else ""
    message = f"{last.date} has no PHASE{before}: {last.result}, {last.reason}: {last.evidence}; klorosctl history --dates"
    log(Event.PHASE_MISSED, message, priority=Priority.WARNING, date=last.date, reason=last.reason, dates=len(dates))


def _is_product_due(kernel: Kernel) -> bool:
    """Tell whether a bundle is to be made or copied that no runner has seen to."""
    now = to_text(kernel.now())
    if kernel.db.rows("bundles.due", now=now):
        return True
    return bool(kernel.settings.federation.target and kernel.db.rows("federation.due", now=now, limit=1))


def _is_cycle_waiting(kernel: Kernel) -> bool:
    """Tell whether a cycle needs a runner of this host: queued for it, or with Slurm, after which the leader's looks."""
    if not (active := ledger.active(kernel.db)):
        return False
    from orchestration.cycles import claims

    if claims.is_waiting(active, kernel.settings):
        return True
    with_slurm = any(cycle.executor is Executor.SLURM for cycle in active)
    return with_slurm and (kernel.leading is None or kernel.leading.look().holder == kernel.leading.here)


def launch(kernel: Kernel) -> bool:
    """Get a runner started for cycles that wait for this host or are with Slurm, and bundles that are due; until one has
    seen to them."""
    if not (_is_cycle_waiting(kernel) or _is_product_due(kernel)):
        return True
    try:
        kernel.start("run_cycle")
    except KlorosError as error:
        log(Event.LAUNCH_FAILED, f"no runner could be started, the next tick tries again: {error}", priority=Priority.ERROR)
        return False
    return True
