"""What a finished cycle means: acks, baseline, failures, a PHASE's date and verdict, a reflection's intents.

Files that others wait for come first, each write of them idempotent; then one transaction notes everything and marks the
cycle settled; the files of baseline and escrow, which are copies, follow. Killed in between, the next tick goes on there.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import NamedTuple

from orchestration.baseline import copies, escrow_files, escrow_ledger
from orchestration.baseline.escrow import Entry
from orchestration.cycles import artifacts, ledger, products
from orchestration.cycles.cycle import Cycle, JobName, folder_name
from orchestration.errors import Unwritable
from orchestration.host.journal import Event, Priority, log
from orchestration.promotions.verdict import Answer
from orchestration.store.instants import to_text
from orchestration.tick import answers, calendar, failures, hold, reflected, validate
from orchestration.tick.kernel import Kernel

_OF_THE_FOLDER = frozenset(
    {errno.EACCES, errno.EPERM, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
)


class Answered(NamedTuple):
    """What a D-REAM cycle answers to its promotions; nothing of it for any other cycle."""

    answers: tuple[Answer, ...]
    held: Mapping[str, Entry]  # by stem: what of the accepted ones waits in escrow
    hindrance: str = ""  # why none of it can stand; empty when it does


def answered(kernel: Kernel, cycle: Cycle) -> Answered:
    """Work out what a cycle answers; reads, changes nothing.

    Raises:
        BaselineInvalid: nobody knows what the baseline is.
    """
    given = answers.of_cycle(kernel, cycle)
    hindrance = answers.hindrance(kernel) if given else ""
    standing = () if hindrance else given
    return Answered(standing, hold.held(kernel, cycle, standing), hindrance)


def apply(kernel: Kernel, cycle: Cycle) -> None:
    """Settle one finished cycle."""
    found = _write_answers(kernel, cycle)
    if found.hindrance:
        log(Event.PROMOTION_LEFT, f"nothing of cycle {cycle.cycle} is answered: {found.hindrance}", priority=Priority.ERROR)
    if kernel.shared is None:
        write_manifest(kernel, cycle)
    parked = failures.parking(kernel, cycle, found.answers, found.hindrance)
    failures.write_alerts(kernel, cycle, parked)
    result = validate.result_of(kernel, cycle) if cycle.job is JobName.PHASE else None
    left = reflected.left_by(kernel, cycle)
    reflected.write(kernel, left)
    with kernel.db.transaction():
        note(kernel, cycle, found)
        concluded = None if result is None else validate.validate(kernel, cycle, result)
        reflected.note(kernel, cycle, left)
    write_copies(kernel)
    answers.tell_held(found.held)
    if concluded is not None:
        validate.tell(concluded)
    failures.tell(cycle, parked)
    log(Event.CYCLE_SETTLED, f"cycle {cycle.cycle} ({cycle.job}) {cycle.state}: settled", cycle=cycle.cycle)


def _write_answers(kernel: Kernel, cycle: Cycle) -> Answered:
    """Work out what a cycle answers, and write its acks; once more when somebody else has answered one meanwhile."""
    while True:
        found = answered(kernel, cycle)
        answers.write_acks(kernel, cycle, found.answers, found.held)
        if kernel.shared is None or kernel.shared.answer([answer.stem for answer in found.answers]):
            return found


def note(kernel: Kernel, cycle: Cycle, found: Answered) -> None:
    """Write it into the store, but for a PHASE's verdict and a reflection's intents. Inside a transaction."""
    now = kernel.now()
    if not ledger.settle(kernel.db, cycle.cycle, now=now):
        return
    if kernel.db.is_shared:  # not so of a copy of the store
        kernel.db.run("shared_files.ended", cycle=cycle.cycle, folder=folder_name(cycle.cycle))
    if cycle.job is JobName.PHASE:
        calendar.settle_phase(kernel, cycle, now)
        kernel.db.run("facts.observer_news", now=to_text(now))
    answers.note(kernel, cycle, found.answers, found.held)
    failures.note(kernel, cycle, found.answers, found.hindrance)
    if kernel.settings.cycles.bundle and cycle.started_at is not None:
        kernel.db.run("bundles.ask", cycle=cycle.cycle, due_at=to_text(now))  # unless its runner did
    if kernel.settings.federation.target and cycle.started_at is not None:
        kernel.db.run("federation.ask", cycle=cycle.cycle, now=to_text(now))


def catch_up(kernel: Kernel, *, expired: bool) -> None:
    """Write the copies that an earlier tick did not come to; `expired`: entries of escrow are too old, and end."""
    if expired:
        _expire_escrow(kernel)
    write_copies(kernel)


def write_copies(kernel: Kernel) -> None:
    """Bring the files of baseline and escrow up to the store."""
    escrow_files.bring_up(kernel.db, kernel.path("escrow"))
    for version in copies.bring_up(kernel.db, kernel.path("baseline")):
        message = f"the baseline is version {version.version} now: {version.provenance.reason}"
        log(Event.BASELINE_REPLACED, message, version=version.version, cycle=version.provenance.cycle)


def write_manifest(kernel: Kernel, cycle: Cycle) -> None:
    """Write the manifest; what the command has made of its own folder is told, and holds up nobody."""
    try:
        artifacts.write_manifest(kernel.settings.cycles_dir, cycle, products.get(kernel.db, cycle.cycle))
    except Unwritable as error:
        if getattr(error.__cause__, "errno", None) not in _OF_THE_FOLDER:
            raise
        log(Event.CYCLE_SETTLED, f"no manifest: {error.message}", priority=Priority.WARNING, cycle=cycle.cycle)


def _expire_escrow(kernel: Kernel) -> None:
    with kernel.db.transaction():
        late = escrow_ledger.expire(kernel.db, at=kernel.now())
    for entry in late:
        message = f"escrow {entry.entry} has expired, nobody decided on {entry.subject}"
        log(Event.ESCROW_CLOSED, message, priority=Priority.WARNING, entry=entry.entry, cycle=entry.cycle)
