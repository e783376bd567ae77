"""Applies what a finished cycle means, once: acks, baseline, failures, the PHASE's date.

Files first, each of them idempotent, then one transaction that notes everything and marks the cycle settled. Killed in
between, the next tick does the same again: an ack that exists stays, a baseline that has the cycle stays.
Most ticks have nothing to settle, so what settling needs is imported only then.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cycle, CycleState, JobName
from orchestration.host.journal import Event, Priority, log
from orchestration.promotions.state import AckVerdict
from orchestration.store.counters import count
from orchestration.store.instants import to_text
from orchestration.tick import calendar
from orchestration.tick.kernel import Kernel

if TYPE_CHECKING:
    from orchestration.promotions.verdict import Answer


def settle(kernel: Kernel) -> None:
    """Settle every finished cycle that is not settled, oldest first."""
    for cycle in ledger.unsettled(kernel.db):
        answers = answered(kernel, cycle)
        _write_files(kernel, cycle, answers)
        with kernel.db.transaction():
            note(kernel, cycle, answers)
        _alert_of_parked(kernel, cycle)
        log(Event.CYCLE_SETTLED, f"cycle {cycle.cycle} ({cycle.job}) {cycle.state}: settled", cycle=cycle.cycle)


def answered(kernel: Kernel, cycle: Cycle) -> tuple[Answer, ...]:
    """Return what a succeeded D-REAM cycle answers to its promotions; reads, changes nothing."""
    if cycle.job is not JobName.DREAM or cycle.state is not CycleState.SUCCEEDED or not cycle.origin.promotions:
        return ()
    from orchestration.cycles import artifacts
    from orchestration.promotions.ack import answered_elsewhere
    from orchestration.promotions.verdict import conclude, without

    folder = artifacts.cycle_dir(kernel.settings.cycles_dir, cycle.cycle)
    acks, stems = kernel.settings.acks_dir, cycle.origin.promotions
    elsewhere = frozenset(stem for stem in stems if answered_elsewhere(acks, stem, cycle=cycle.cycle))
    digest = None if cycle.result is None else cycle.result.report_sha
    return conclude(without(artifacts.read_handover(folder), elsewhere), artifacts.read_verdicts(folder, digest))


def note(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...]) -> None:
    """Write all of it into the store. Must run inside a transaction."""
    now = kernel.now()
    if not ledger.settle(kernel.db, cycle.cycle, now=now):
        return
    if cycle.job is JobName.PHASE:
        calendar.settle_phase(kernel, cycle, now)
    for answer in answers:
        _note_answer(kernel, cycle, answer)
    if ledger.is_failure(cycle) and cycle.origin.promotions:
        _note_failure(kernel, cycle)
    if kernel.settings.federation.target and cycle.started_at is not None:
        kernel.db.run("federation.ask", cycle=cycle.cycle, now=to_text(now))


def _write_files(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...]) -> None:
    from orchestration.cycles import artifacts, products

    if answers:
        _commit_baseline(kernel, cycle, answers)
        _write_acks(kernel, cycle, answers)
    artifacts.write_manifest(kernel.settings.cycles_dir, cycle, products.get(kernel.db, cycle.cycle))


def _commit_baseline(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...]) -> None:
    from orchestration.cycles import artifacts
    from orchestration.promotions import baseline
    from orchestration.promotions.verdict import accepted_of

    handover = artifacts.read_handover(artifacts.cycle_dir(kernel.settings.cycles_dir, cycle.cycle))
    path = baseline.baseline_path(kernel.settings.state_dir)
    if baseline.commit(path, accepted_of(handover, answers), cycle=cycle.cycle, now=_ended_at(cycle)):
        log(Event.BASELINE_REPLACED, f"cycle {cycle.cycle} set a new baseline", cycle=cycle.cycle)


def _write_acks(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...]) -> None:
    from orchestration.promotions.ack import Ack, write_ack

    epoch, sha = last_phase(kernel)
    for answer in answers:
        ack = Ack(
            stem=answer.stem,
            promotion_id=answer.promotion_id,
            accepted=answer.accepted,
            reason=answer.reason,
            phase_epoch=epoch,
            phase_sha=sha,
            cycle=cycle.cycle,
            at=kernel.now(),
        )
        write_ack(kernel.settings.acks_dir, ack)


def last_phase(kernel: Kernel) -> tuple[str, str]:
    """Return epoch and report's SHA-256 of the last succeeded PHASE; empty before the first."""
    phase = ledger.last_succeeded(kernel.db, JobName.PHASE)
    if phase is None or phase.result is None:
        return "", ""
    return phase.result.epoch or "", phase.result.report_sha or ""


def _note_answer(kernel: Kernel, cycle: Cycle, answer: Answer) -> None:
    from orchestration.promotions import ledger as promotions

    first = promotions.answer(
        kernel.db,
        answer.stem,
        promotion_id=answer.promotion_id,
        accepted=answer.accepted,
        reason=answer.reason,
        fitness=answer.fitness,
        cycle=cycle.cycle,
        at=kernel.now(),
    )
    if first:
        verdict = AckVerdict.ACCEPTED if answer.accepted else AckVerdict.REJECTED
        count(kernel.db, "kloros_promotions_total", verdict=verdict)


def _note_failure(kernel: Kernel, cycle: Cycle) -> None:
    from orchestration.promotions import ledger as promotions

    promotions.fail(
        kernel.db,
        cycle.origin.promotions,
        cycle=cycle.cycle,
        reason=f"cycle {cycle.cycle} {cycle.state}: {'' if cycle.result is None else cycle.result.reason}",
        park_after=kernel.settings.dream.park_after,
        at=kernel.now(),
    )


def _alert_of_parked(kernel: Kernel, cycle: Cycle) -> None:
    """Say which promotions this cycle's failure parked, in the journal and in alerts.jsonl.

    Killed just before, nobody says it: the metric and `status` still do.
    """
    if not (ledger.is_failure(cycle) and cycle.origin.promotions):
        return
    import json

    from orchestration.host import files
    from orchestration.promotions import ledger as promotions
    from orchestration.promotions.state import PromotionState

    for one in promotions.known(kernel.db, cycle.origin.promotions).values():
        if one.state is not PromotionState.PARKED or one.cycle != cycle.cycle:
            continue
        message = (
            f"promotion {one.stem} is parked after {one.failures} failed cycles in a row, the last: {one.reason}; "
            f"klorosctl promotions retry|reject {one.stem}"
        )
        log(Event.PROMOTION_PARKED, message, priority=Priority.ERROR, promotion=one.stem, cycle=cycle.cycle)
        alert = {
            "ts": int(kernel.now().timestamp()),
            "kind": "promotion_parked",
            "promotion": one.stem,
            "cycle": cycle.cycle,
            "message": message,
        }
        files.append_line(kernel.path("alerts.jsonl"), json.dumps(alert))


def _ended_at(cycle: Cycle) -> datetime:
    if cycle.ended_at is None:
        raise ValueError(f"cycle {cycle.cycle} is {cycle.state} and has no end")
    return cycle.ended_at
