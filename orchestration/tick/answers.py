"""What a D-REAM cycle answers to its promotions: acks, the baseline's next version, and what waits in escrow."""

from __future__ import annotations

from collections.abc import Mapping

from orchestration.baseline import escrow_ledger, history
from orchestration.baseline.escrow import Entry
from orchestration.baseline.version import Kind, Provenance
from orchestration.cycles import artifacts
from orchestration.cycles import ledger as cycles
from orchestration.cycles.cycle import Cycle, CycleState, JobName, end_of, folder_name
from orchestration.host.journal import Event, Priority, log
from orchestration.promotions import ledger as promotions
from orchestration.promotions.ack import Ack, answered_elsewhere, write_ack
from orchestration.promotions.baseline import BaselineInvalid
from orchestration.promotions.state import AckVerdict
from orchestration.promotions.verdict import Answer, accepted_of, conclude, without
from orchestration.store.counters import count
from orchestration.tick.kernel import Kernel


def of_cycle(kernel: Kernel, cycle: Cycle) -> tuple[Answer, ...]:
    """Return what a succeeded D-REAM cycle answers to its promotions; reads, changes nothing."""
    if cycle.job is not JobName.DREAM or cycle.state is not CycleState.SUCCEEDED or not cycle.origin.promotions:
        return ()
    folder = kernel.cycle_dir(folder_name(cycle.cycle))
    acks, stems = kernel.acks_dir, cycle.origin.promotions
    elsewhere = frozenset(stem for stem in stems if answered_elsewhere(acks, stem, cycle=cycle.cycle))
    digest = None if cycle.result is None else cycle.result.report_sha
    return conclude(without(artifacts.read_handover(folder), elsewhere), artifacts.read_verdicts(folder, digest))


def hindrance(kernel: Kernel) -> str:
    """Return why nothing can be taken into the baseline; empty when it can."""
    try:
        if history.newest(kernel.db) is None:
            history.older(kernel.settings.state_dir)
    except BaselineInvalid as error:
        return error.message
    return ""


def write_acks(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...], held: Mapping[str, Entry]) -> None:
    """Write the acks; one that is there already stays. An ack names the entry of what is held.

    Raises:
        Unwritable: the disk is full, or the folder not ours.
    """
    epoch, sha = cycles.last_phase(kernel.db) if answers else ("", "")
    for answer in answers:
        ack = Ack(
            stem=answer.stem,
            promotion_id=answer.promotion_id,
            accepted=answer.accepted,
            reason=answer.reason,
            phase_epoch=epoch,
            phase_sha=sha,
            cycle=cycle.cycle,
            escrow=held[answer.stem].entry if answer.stem in held else "",
            at=kernel.now(),
        )
        write_ack(kernel.acks_dir, ack)


def note(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...], held: Mapping[str, Entry]) -> None:
    """Write the answers into the store, with the version of the baseline that they make. Inside a transaction."""
    if not answers:
        return
    for answer in answers:
        _note_answer(kernel, cycle, answer)
    _commit_baseline(kernel, cycle, answers, held)


def tell_held(held: Mapping[str, Entry]) -> None:
    """Say what waits for a person."""
    for entry in held.values():
        message = f"promotion {entry.stem} waits for a person, {entry.rule}; klorosctl escrow show {entry.entry}"
        log(Event.ESCROW_HELD, message, priority=Priority.NOTICE, entry=entry.entry, cycle=entry.cycle)


def _note_answer(kernel: Kernel, cycle: Cycle, answer: Answer) -> None:
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


def _commit_baseline(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...], held: Mapping[str, Entry]) -> None:
    """Take what is accepted into the baseline, as one version, and what is held into escrow."""
    handover = artifacts.read_handover(kernel.cycle_dir(folder_name(cycle.cycle)))
    accepted = accepted_of(handover, answers)
    escrow_ledger.supersede(kernel.db, [one.stem for one in accepted], cycle=cycle.cycle, at=kernel.now())
    for entry in held.values():
        escrow_ledger.hold(kernel.db, entry)
    reason = f"cycle {cycle.cycle} accepted {len(accepted)} of {len(answers)} promotions"
    reason += f", {len(held)} of them wait in escrow" if held else ""
    made = Provenance(at=end_of(cycle), actor=history.PROGRAM, kind=Kind.CYCLE, reason=reason, cycle=cycle.cycle)
    taken = [one for one in accepted if one.stem not in held]
    history.take_in(kernel.db, taken, made, state_dir=kernel.settings.state_dir)
