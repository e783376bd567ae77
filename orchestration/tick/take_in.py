"""Takes in what others left for us: promotions and intents, validated, with an answer at once for what is invalid.

As everywhere, the store first, then the files: an intent is moved only after its fate is committed, and a refused
promotion is noted before it is acked, because nobody looks at it again once it has its ack. Killed in between, the next
tick refuses it again, which the store counts once.
"""

from typing import TYPE_CHECKING, NamedTuple

from orchestration.cycles import ledger as cycles
from orchestration.cycles.cycle import CycleNumber
from orchestration.errors import KlorosError, Unwritable
from orchestration.host.journal import Event, Priority, log
from orchestration.intents import inbox
from orchestration.intents.intent import Status, Verdict
from orchestration.promotions.scan import scan_unacked, stem_of
from orchestration.promotions.state import AckVerdict
from orchestration.store.instants import to_text
from orchestration.tick.kernel import Kernel

if TYPE_CHECKING:
    from orchestration.promotions.reading import Answered, Candidate, Left, Refused
else:
    Answered = Candidate = Left = Refused = object  # a field's type as text is compiled at each start (decision 0002)

_LEFT = "promotions.left"
_DROPPED = (Status.QUEUE_OVERFLOW, Status.MALFORMED, Status.UNKNOWN, Status.STALE)


class Found(NamedTuple):
    """What lies in the two folders."""

    promotions: tuple[str, ...]  # stems of the valid ones that wait
    parked: tuple[str, ...]  # stems
    intents: inbox.Sorted
    valid: tuple[Candidate, ...] = ()
    refused: tuple[Refused, ...] = ()
    left: tuple[Left, ...] = ()
    answered: tuple[Answered, ...] = ()
    fault: KlorosError | None = None  # kept us from a folder of promotions; to be raised when all else is done


def take_in(kernel: Kernel) -> Found:
    """Look, note it all in the store, and answer what is invalid."""
    found = look(kernel)
    _tell_left(kernel, found.left)
    found = note(kernel, found)
    tell_dropped(found.intents.verdicts)
    try:
        _refuse(kernel, found.refused)
    except Unwritable as error:
        found = found._replace(fault=error)
    return found


def _tell_left(kernel: Kernel, left: tuple[Left, ...]) -> None:
    """Say once, and not every minute, which promotion can't be read and why."""
    if not left:
        return
    import json

    known = kernel.db.rows("facts.get", name=_LEFT)
    told = json.loads(str(known[0]["value"])) if known else {}
    now = {one.name: one.reason for one in left}
    for name, reason in now.items():
        if told.get(name) != reason:
            message = f"promotion {name} is left for a later tick: {reason}"
            log(Event.PROMOTION_LEFT, message, priority=Priority.WARNING)
    if now != told:
        with kernel.db.transaction():
            kernel.db.run("facts.set", name=_LEFT, value=json.dumps(now))


def tell_dropped(verdicts: tuple[Verdict, ...]) -> None:
    """Tell the journal what was not acted on: one line for each status, because a flood has thousands."""
    for status in _DROPPED:
        dropped = [verdict for verdict in verdicts if verdict.status is status]
        if dropped:
            more = f" and {len(dropped) - 1} more" if len(dropped) > 1 else ""
            message = f"{status}: intent {dropped[0].intent.name}{more}: {dropped[0].reason}; they lie in processed/{status}"
            log(Event.INTENTS_DROPPED, message, priority=Priority.WARNING, status=status, intents=len(dropped))


def look(kernel: Kernel) -> Found:
    """Read the promotions that have no ack. Opens nothing when there is none, and changes nothing."""
    settings = kernel.settings
    try:
        scan = scan_unacked(kernel.db, promotions_dir=kernel.promotions_dir, acks_dir=kernel.acks_dir)
    except Unwritable as fault:
        return Found((), (), inbox.NOTHING, fault=fault)
    parked = tuple(stem_of(name) for name in scan.parked)
    if not scan.waiting:
        return Found((), parked, inbox.NOTHING)
    from orchestration.promotions.reading import read_promotions

    read = read_promotions(
        kernel.promotions_dir,
        scan.waiting,
        bounds=settings.promotions.bounds,
        strict=settings.promotions.strict,
        now=kernel.now(),
        older_answers=scan.older_answers,
    )
    waiting = tuple(one.stem for one in read.candidates)
    return Found(waiting, parked, inbox.NOTHING, read.candidates, read.refused, read.left, read.answered)


def note(kernel: Kernel, found: Found) -> Found:
    """Note in the store what was found, and decide on every intent that starts nothing."""
    if not (found.valid or found.refused or found.answered or _any_intents(kernel)):
        return found
    with kernel.db.transaction():
        _note_promotions(kernel, found)
        sorted_out = inbox.sort_out(kernel.intents_dir, kernel.db, kernel.now(), kernel.settings.intents)
    return found._replace(intents=sorted_out)


def note_started(kernel: Kernel, found: Found, name: str, cycle: CycleNumber) -> None:
    """Note that an intent has its cycle. Must run inside the transaction that queues the cycle."""
    intent = next(one for one in found.intents.pending if one.name == name)
    inbox.conclude(kernel.db, intent, Status.PROCESSED, reason=f"started cycle {cycle}", now=kernel.now(), cycle=cycle)


def file_away(kernel: Kernel, found: Found) -> None:
    """Move the files of decided intents. Must follow the commit.

    Raises:
        Unwritable: a file could not be moved, or a folder of promotions not be used; all else is done.
    """
    if found.intents.verdicts or kernel.db.rows("intents.open"):
        from orchestration.intents import filing

        notes = kernel.settings.state_dir if kernel.shared is None else None  # whose file it is notes it
        moved = filing.file_away(kernel.intents_dir, notes, kernel.db, found.intents)
        if moved and kernel.shared is not None:
            kernel.shared.is_answered = True
    if found.fault is not None:
        raise found.fault


def _any_intents(kernel: Kernel) -> bool:
    return bool(inbox.list_names(kernel.intents_dir) or kernel.db.rows("intents.open"))


def _refuse(kernel: Kernel, refused: tuple[Refused, ...]) -> None:
    if not refused:
        return
    from orchestration.promotions import refusal

    phase = cycles.last_phase(kernel.db)
    for one in refused:
        refusal.write(kernel.acks_dir, one, last_phase=phase, at=kernel.now())
        log(Event.PROMOTION_ACKED, f"promotion {one.stem} is refused: {one.reason}", priority=Priority.WARNING)
    if kernel.shared is not None:
        kernel.shared.answer([one.stem for one in refused])


def _note_promotions(kernel: Kernel, found: Found) -> None:
    if not (found.valid or found.refused or found.answered):
        return
    from orchestration.promotions import ledger, refusal

    now = kernel.now()
    kernel.db.run("facts.observer_news", now=to_text(now))
    for one in found.valid:
        ledger.see(kernel.db, one.stem, promotion_id=one.promotion.id, fitness=one.promotion.fitness, at=now)
    for answered in found.answered:
        ledger.see(kernel.db, answered.stem, promotion_id=answered.promotion_id, fitness=None, at=now)
    for refused in found.refused:
        refusal.note(kernel.db, refused, AckVerdict.INVALID, at=now)
