"""Notes the result of a finished PHASE, and draws the conclusion about the version of the baseline that it ran under.

Imported only when a PHASE is settled; result, verdict and rollback stand in the transaction that settles it.
"""

from __future__ import annotations

from typing import NamedTuple

from orchestration.baseline import copies, history, verdicts
from orchestration.baseline.escrow_ledger import hold_rollback
from orchestration.baseline.validation import Comparison, Limits, Verdict, asking, hindrance, standing
from orchestration.baseline.verdicts import Concluded
from orchestration.baseline.version import Kind, Provenance, Version
from orchestration.cycles import artifacts
from orchestration.cycles.cycle import Cause, Cycle, CycleState, folder_name
from orchestration.host.journal import Event, Priority, log
from orchestration.phase import hints, report
from orchestration.phase.result import PhaseResult, of_report
from orchestration.promotions.baseline import BaselineInvalid
from orchestration.tick.kernel import Kernel


class _Done(NamedTuple):
    """What was done about a version that is worse."""

    verdict: Verdict
    words: str
    made: int | None = None
    entry: str | None = None


def result_of(kernel: Kernel, cycle: Cycle) -> PhaseResult | None:
    """Read what a PHASE came to; None when that is not known, or when a person ran it by hand. Changes nothing.

    A failed one has a result if its command ended by itself and its report says that it came to its end.
    """
    found = cycle.result
    if found is None or cycle.origin.cause is Cause.DIRECT:
        return None
    succeeded = cycle.state is CycleState.SUCCEEDED
    failed = cycle.state is CycleState.FAILED and found.exit_code is not None and found.exit_code > 0
    if not (succeeded or failed):
        return None
    path = found.report
    if kernel.shared is not None and path is not None:  # it names a file of the host that ran it
        path = artifacts.report_path(kernel.cycle_dir(folder_name(cycle.cycle)))
    return of_report(report.read(path, found.report_sha), succeeded=succeeded)


def validate(kernel: Kernel, cycle: Cycle, result: PhaseResult) -> Concluded | None:
    """Note a PHASE's result, and return the verdict that it brings about, if any. Inside a transaction."""
    db, settings = kernel.db, kernel.settings.validation
    phase_type = hints.type_of(db, cycle.cycle)
    counts = _files_are_whole(kernel, cycle)
    verdicts.note_result(db, cycle.cycle, phase_type=phase_type, measure=result.measure, value=result.value, counts=counts)
    number = verdicts.version_of(db, cycle.cycle)
    version = history.get(db, number) if number else None
    if version is None or verdicts.verdict(db, version.version) is not None:
        return None
    before = history.get(db, version.version - 1)
    found = verdicts.compared(db, version, before, results=settings.results)
    limits = Limits(keep_at=settings.keep_at, roll_back_below=settings.roll_back_below, results=settings.results)
    verdict = standing(found, limits)
    if verdict is None:
        return None
    done = _answer(kernel, version, before, found) if verdict is Verdict.WORSE else _Done(verdict, "")
    concluded = Concluded(
        version=version.version,
        verdict=done.verdict,
        before=tuple(one.value for one in found.before),
        after=tuple(one.value for one in found.after),
        cycles_before=tuple(one.cycle for one in found.before),
        cycles_after=tuple(one.cycle for one in found.after),
        change=found.relative or 0.0,
        reason=f"{found.numbers}{_limit(kernel, verdict)}{done.words}",
        cycle=cycle.cycle,
        made=done.made,
        entry=done.entry,
        at=kernel.now(),
    )
    verdicts.conclude(db, concluded)
    return concluded


def _files_are_whole(kernel: Kernel, cycle: Cycle) -> bool:
    """Tell whether the PHASE was given the baseline that was committed, as far as can be seen now; an edit is told."""
    try:
        copies.check_in_force(kernel.db, kernel.path("baseline"))
    except BaselineInvalid as error:
        message = f"the result of PHASE {cycle.cycle} counts for no version of the baseline: {error}"
        log(Event.BASELINE_JUDGED, message, priority=Priority.WARNING, cycle=cycle.cycle)
        return False
    return True


def tell(concluded: Concluded) -> None:
    """Say what was concluded; what is worse, as a warning."""
    good = concluded.verdict in (Verdict.KEPT, Verdict.NEUTRAL)
    log(
        Event.BASELINE_JUDGED,
        f"baseline version {concluded.version} is {concluded.verdict}: {concluded.reason}",
        priority=Priority.NOTICE if good else Priority.WARNING,
        version=concluded.version,
        verdict=concluded.verdict,
        cycle=concluded.cycle,
    )


def _answer(kernel: Kernel, version: Version, before: Version | None, found: Comparison) -> _Done:
    """Roll a worse version back, or have a person decide, or say why neither can be."""
    newest = history.newest(kernel.db)
    hindered = hindrance(version=version.version, in_force=version.version if newest is None else newest.version)
    if before is None or hindered:
        return _Done(Verdict.WORSE, f"; nothing was done: {hindered}")
    why = asking(version.provenance.kind, automatic=kernel.settings.validation.automatic)
    why = why or _outside(kernel, version, before)
    rule = f"version {version.version} was worse, {found.numbers}"
    if why:
        entry = _ask(kernel, version, before, found, f"{rule}; {why}")
        where = f"show {entry}" if entry else "list --all"
        return _Done(Verdict.ESCROWED, f"; a person decides, for {why}: klorosctl escrow {where}", entry=entry)
    made = Provenance(
        at=kernel.now(),
        actor=history.PROGRAM,
        kind=Kind.ROLLBACK,
        reason=f"to version {before.version}: {rule}",
    )
    put = history.put_back(kernel.db, before.version, made)
    return _Done(Verdict.ROLLED_BACK, f"; version {before.version} is in force again, as version {put.version}", put.version)


def _ask(kernel: Kernel, version: Version, before: Version, found: Comparison, rule: str) -> str | None:
    """Hold the rollback in escrow; None when it was asked for before."""
    return hold_rollback(
        kernel.db,
        before.version,
        rule=rule,
        evidence={
            "version": version.version,
            "change": found.relative,
            "before": [[one.cycle, one.value] for one in found.before],
            "after": [[one.cycle, one.value] for one in found.after],
        },
        at=kernel.now(),
        expires_after=kernel.settings.escrow.expires_after,
        cycle=found.after[-1].cycle,
    )


def _outside(kernel: Kernel, version: Version, before: Version) -> str:
    """Say why a rollback would bring in what is out of today's bounds; empty when it would not."""
    settings = kernel.settings.promotions
    found = history.outside(version, before, bounds=settings.bounds, strict=settings.strict)
    return f"it would bring in {found}" if found else ""


def _limit(kernel: Kernel, verdict: Verdict) -> str:
    settings = kernel.settings.validation
    if verdict is Verdict.KEPT:
        return f"; kept from {settings.keep_at * 100:+.3g} %"
    return f"; rolled back below {settings.roll_back_below * 100:+.3g} %"
