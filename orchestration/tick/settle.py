"""Applies what a finished cycle means, once: acks, baseline, failures, the PHASE's date, the verdict on the baseline.

Acks first, each of them idempotent, then one transaction that notes everything, the new version of the baseline included,
and marks the cycle settled; the baseline's files, which are copies, follow. Killed in between, the next tick goes on there.
Most ticks have nothing to settle, so what settling needs is imported only then.
"""

from __future__ import annotations

import errno
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cycle, CycleState, JobName
from orchestration.errors import Unwritable
from orchestration.host.journal import Event, Priority, log
from orchestration.promotions.state import AckVerdict
from orchestration.store.counters import count
from orchestration.store.instants import to_text
from orchestration.tick import calendar
from orchestration.tick.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestration.baseline.escrow import Entry
    from orchestration.baseline.verdicts import Concluded
    from orchestration.phase.result import PhaseResult
    from orchestration.promotions.verdict import Answer
    from orchestration.tick.reflected import Left


_NOTHING: Mapping[str, Entry] = MappingProxyType({})
_NOT_TRIED = "nothing tells that it was tried: it is not in the cycle's promotions.json"
_OF_THE_FOLDER = frozenset(
    {errno.EACCES, errno.EPERM, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
)


def settle(kernel: Kernel) -> None:
    """Settle every finished cycle that is not settled, oldest first."""
    due = kernel.db.rows("baseline.due", now=to_text(kernel.now()))
    if due:
        if any(row["what"] == "expired" for row in due):
            _expire_escrow(kernel)
        _write_copies(kernel)
    for cycle in ledger.unsettled(kernel.db):
        answers = answered(kernel, cycle)
        hindrance = _hindrance(kernel, cycle) if answers else ""
        standing = () if hindrance else answers
        waiting = held(kernel, cycle, standing)
        _write_acks(kernel, cycle, standing, waiting)
        _write_manifest(kernel, cycle)
        parked = _parked_by(kernel, cycle, _unanswered(cycle, standing), hindrance)
        if parked:
            _write_alerts(kernel, cycle, parked)
        result = _phase_result(cycle)
        left = _left_by(kernel, cycle) if cycle.job is JobName.REFLECTION else None
        with kernel.db.transaction():
            note(kernel, cycle, standing, hindrance, held=waiting)
            concluded = _validate(kernel, cycle, result)
            if left is not None:
                _note_refused(kernel, cycle, left)
        _write_copies(kernel)
        _tell_held(waiting)
        _tell(concluded)
        for stem, message in parked.items():
            log(Event.PROMOTION_PARKED, message, priority=Priority.ERROR, promotion=stem, cycle=cycle.cycle)
        log(Event.CYCLE_SETTLED, f"cycle {cycle.cycle} ({cycle.job}) {cycle.state}: settled", cycle=cycle.cycle)


def _left_by(kernel: Kernel, cycle: Cycle) -> Left:
    """Put the intents that a reflection left where all intents lie; returns what became of them."""
    from orchestration.tick import reflected

    left = reflected.left_by(kernel, cycle)
    reflected.write(kernel, left)
    return left


def _note_refused(kernel: Kernel, cycle: Cycle, left: Left) -> None:
    from orchestration.tick import reflected

    reflected.note(kernel, cycle, left)


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


def held(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...]) -> Mapping[str, Entry]:
    """Return what of it waits in escrow, stem → entry; reads, changes nothing.

    Raises:
        BaselineInvalid: nobody knows what the baseline is.
    """
    if not answers:
        return _NOTHING
    from orchestration.tick import hold

    return hold.held(kernel, cycle, answers)


def note(
    kernel: Kernel,
    cycle: Cycle,
    answers: tuple[Answer, ...],
    hindrance: str = "",
    *,
    held: Mapping[str, Entry] = _NOTHING,
) -> None:
    """Write all of it into the store. Must run inside a transaction.

    A promotion that goes without an answer, whether the cycle failed or something hindered us, has failed once more: it
    goes again, and is parked at last.
    """
    now = kernel.now()
    if not ledger.settle(kernel.db, cycle.cycle, now=now):
        return
    if cycle.job is JobName.PHASE:
        calendar.settle_phase(kernel, cycle, now)
        kernel.db.run("facts.observer_news", now=to_text(now))
    for answer in answers:
        _note_answer(kernel, cycle, answer)
    if answers:
        _commit_baseline(kernel, cycle, answers, held)
    unanswered = _unanswered(cycle, answers)
    if unanswered:
        _note_failure(kernel, cycle, unanswered, hindrance)
    if kernel.settings.cycles.bundle and cycle.started_at is not None:
        kernel.db.run("bundles.ask", cycle=cycle.cycle, due_at=to_text(now))  # unless its runner did
    if kernel.settings.federation.target and cycle.started_at is not None:
        kernel.db.run("federation.ask", cycle=cycle.cycle, now=to_text(now))


def _phase_result(cycle: Cycle) -> PhaseResult | None:
    if cycle.job is not JobName.PHASE:
        return None
    from orchestration.tick import validate

    return validate.result_of(cycle)


def _validate(kernel: Kernel, cycle: Cycle, result: PhaseResult | None) -> Concluded | None:
    """Judge the baseline by a PHASE's result, and roll it back if it comes to that."""
    if result is None:
        return None
    from orchestration.tick import validate

    return validate.validate(kernel, cycle, result)


def _tell(concluded: Concluded | None) -> None:
    if concluded is not None:
        from orchestration.tick import validate

        validate.tell(concluded)


def _unanswered(cycle: Cycle, answers: tuple[Answer, ...]) -> frozenset[str]:
    """Return the stems for which the cycle counts as a failure; what a person cancelled counts against nothing."""
    if cycle.state is CycleState.CANCELLED:
        return frozenset()
    return frozenset(cycle.origin.promotions) - {answer.stem for answer in answers}


def _write_manifest(kernel: Kernel, cycle: Cycle) -> None:
    """Write the manifest; what the command has made of its own folder is told, and holds up nobody."""
    from orchestration.cycles import artifacts, products

    try:
        artifacts.write_manifest(kernel.settings.cycles_dir, cycle, products.get(kernel.db, cycle.cycle))
    except Unwritable as error:
        if getattr(error.__cause__, "errno", None) not in _OF_THE_FOLDER:
            raise
        log(Event.CYCLE_SETTLED, f"no manifest: {error.message}", priority=Priority.WARNING, cycle=cycle.cycle)


def _hindrance(kernel: Kernel, cycle: Cycle) -> str:
    """Return why nothing can be taken into the baseline; empty when it can."""
    from orchestration.baseline import history
    from orchestration.promotions.baseline import BaselineInvalid

    try:
        if history.newest(kernel.db) is None:
            history.older(kernel.settings.state_dir)
    except BaselineInvalid as error:
        log(Event.PROMOTION_LEFT, f"nothing of cycle {cycle.cycle} is answered: {error}", priority=Priority.ERROR)
        return error.message
    return ""


def _commit_baseline(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...], held: Mapping[str, Entry]) -> None:
    """Take what is accepted into the baseline, as one version, and what is held into escrow."""
    from orchestration.baseline import escrow_ledger, history
    from orchestration.baseline.version import Kind, Provenance
    from orchestration.cycles import artifacts
    from orchestration.promotions.verdict import accepted_of

    handover = artifacts.read_handover(artifacts.cycle_dir(kernel.settings.cycles_dir, cycle.cycle))
    accepted = accepted_of(handover, answers)
    escrow_ledger.supersede(kernel.db, [one.stem for one in accepted], cycle=cycle.cycle, at=kernel.now())
    for entry in held.values():
        escrow_ledger.hold(kernel.db, entry)
    reason = f"cycle {cycle.cycle} accepted {len(accepted)} of {len(answers)} promotions"
    reason += f", {len(held)} of them wait in escrow" if held else ""
    made = Provenance(at=_ended_at(cycle), actor=history.PROGRAM, kind=Kind.CYCLE, reason=reason, cycle=cycle.cycle)
    taken = [one for one in accepted if one.stem not in held]
    history.take_in(kernel.db, taken, made, state_dir=kernel.settings.state_dir)


def _expire_escrow(kernel: Kernel) -> None:
    from orchestration.baseline import escrow_ledger

    with kernel.db.transaction():
        late = escrow_ledger.expire(kernel.db, at=kernel.now())
    for entry in late:
        message = f"escrow {entry.entry} has expired, nobody decided on {entry.subject}"
        log(Event.ESCROW_CLOSED, message, priority=Priority.WARNING, entry=entry.entry, cycle=entry.cycle)


def _tell_held(held: Mapping[str, Entry]) -> None:
    for entry in held.values():
        message = f"promotion {entry.stem} waits for a person, {entry.rule}; klorosctl escrow show {entry.entry}"
        log(Event.ESCROW_HELD, message, priority=Priority.NOTICE, entry=entry.entry, cycle=entry.cycle)


def _write_copies(kernel: Kernel) -> None:
    """Bring the files of baseline and escrow up to the store."""
    from orchestration.baseline import copies, escrow_files

    escrow_files.bring_up(kernel.db, kernel.path("escrow"))
    for version in copies.bring_up(kernel.db, kernel.path("baseline")):
        message = f"the baseline is version {version.version} now: {version.provenance.reason}"
        log(Event.BASELINE_REPLACED, message, version=version.version, cycle=version.provenance.cycle)


def _write_acks(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...], held: Mapping[str, Entry]) -> None:
    if not answers:
        return
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
            escrow=held[answer.stem].entry if answer.stem in held else "",
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


def _note_failure(kernel: Kernel, cycle: Cycle, stems: frozenset[str], hindrance: str) -> None:
    from orchestration.promotions import ledger as promotions

    promotions.fail(
        kernel.db,
        stems,
        cycle=cycle.cycle,
        reason=_failure_of(cycle, hindrance),
        park_after=kernel.settings.dream.park_after,
        at=kernel.now(),
    )


def _parked_by(kernel: Kernel, cycle: Cycle, stems: frozenset[str], hindrance: str) -> dict[str, str]:
    """Return which of these promotions the failure parks, and what to tell people of each; reads, changes nothing."""
    if not stems:
        return {}
    from orchestration.promotions import ledger as promotions
    from orchestration.promotions.state import PromotionState

    limit = kernel.settings.dream.park_after
    return {
        one.stem: f"promotion {one.stem} is parked after {one.failures + 1} failed cycles in a row, the last: "
        f"{_failure_of(cycle, hindrance)}; klorosctl promotions retry|reject {one.stem}"
        for one in promotions.known(kernel.db, stems).values()
        if one.state is PromotionState.UNACKED and one.cycle != cycle.cycle and one.failures + 1 >= limit
    }


def _write_alerts(kernel: Kernel, cycle: Cycle, parked: dict[str, str]) -> None:
    import json

    from orchestration.host import files

    path = kernel.path("alerts.jsonl")
    for stem, message in parked.items():
        ended = int(_ended_at(cycle).timestamp())
        alert = {"ts": ended, "kind": "promotion_parked", "promotion": stem, "cycle": cycle.cycle, "message": message}
        line = json.dumps(alert)
        if not files.has_line(path, line):
            files.append_line(path, line)


def _failure_of(cycle: Cycle, hindrance: str) -> str:
    said = "" if cycle.result is None else cycle.result.reason
    return f"cycle {cycle.cycle} {cycle.state}: {hindrance or (_NOT_TRIED if cycle.state is CycleState.SUCCEEDED else said)}"


def _ended_at(cycle: Cycle) -> datetime:
    if cycle.ended_at is None:
        raise ValueError(f"cycle {cycle.cycle} is {cycle.state} and has no end")
    return cycle.ended_at
