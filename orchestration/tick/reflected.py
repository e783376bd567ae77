"""Takes the intents that a reflection left in its `artifacts/intents/` into `intents/`, when its cycle is settled.

They are read without trust, by the rules of every intent, and at most `MOST` of them, by name, are taken; none of them may
ask for a reflection, so that reflections don't keep themselves going. Each is written anew under a name that follows from
its content and the cycle's end, so a tick that was killed and settles again writes the same files; the cycle's own folder
stays as it is. What is refused is told, and stands among the decided intents under the name of its cycle.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Final, NamedTuple

from orchestration.cycles import artifacts
from orchestration.cycles.cycle import Cycle, CycleState, JobName, folder_name
from orchestration.errors import Malformed, Unwritable
from orchestration.host import files
from orchestration.host.journal import Event, Priority, log
from orchestration.intents import inbox
from orchestration.intents.document import render
from orchestration.intents.intent import Category, PendingIntent, Status, category_of
from orchestration.intents.reading import Dropped, read
from orchestration.tick.kernel import Kernel

MOST: Final = 5
_LOOKED_AT: Final = 100  # entries of the folder; what lies beyond is counted


class Refused(NamedTuple):
    """An intent that is not taken, and why."""

    name: str  # of its file
    dropped: Dropped | None
    status: Status
    reason: str


class Left(NamedTuple):
    """What a reflection left, sorted."""

    taken: tuple[tuple[str, bytes], ...]  # file name and content
    refused: tuple[Refused, ...]


def left_by(kernel: Kernel, cycle: Cycle) -> Left:
    """Sort what a cycle left; nothing unless it is a reflection that succeeded. Changes nothing."""
    if cycle.job is not JobName.REFLECTION or cycle.state is not CycleState.SUCCEEDED or cycle.ended_at is None:
        return Left((), ())
    folder = artifacts.intents_path(kernel.cycle_dir(folder_name(cycle.cycle)))
    if any(os.path.islink(one) for one in (folder, os.path.dirname(folder))):
        return Left((), (Refused("", None, Status.FAILED, f"{folder} leads elsewhere by a symbolic link"),))
    try:
        names = inbox.list_names(folder)
    except Unwritable as error:
        return Left((), (Refused("", None, Status.FAILED, error.message),))
    taken: dict[str, bytes] = {}
    refused: list[Refused] = []
    for name in names[:_LOOKED_AT]:
        dropped = read(folder, name, kernel.now())
        judged = _judge(name, dropped, cycle, cycle.ended_at, full=len(taken) >= MOST)
        if isinstance(judged, Refused):
            refused.append(judged)
        elif judged is not None:
            taken[judged[0]] = judged[1]
    if len(names) > _LOOKED_AT:
        more = len(names) - _LOOKED_AT
        refused.append(Refused("more", None, Status.FAILED, f"{more} further files were not looked at"))
    return Left(tuple(taken.items()), tuple(refused))


def _judge(
    name: str, dropped: Dropped | None, cycle: Cycle, ended_at: datetime, *, full: bool
) -> Refused | tuple[str, bytes] | None:
    if dropped is None:
        return None
    intent = dropped.intent
    if intent is None:
        return Refused(name, dropped, Status.MALFORMED, dropped.fault)
    if category_of(intent.intent_type) is Category.REFLECTION:
        return Refused(name, dropped, Status.FAILED, "a reflection may not ask for a reflection")
    if full:
        return Refused(name, dropped, Status.FAILED, f"a reflection may leave {MOST} intents, and this is one more")
    try:
        return render(
            intent_type=intent.intent_type,
            priority=intent.priority,
            reason=intent.reason,
            data=intent.data,
            emitted_by=f"reflection of cycle {cycle.cycle}",
            now=ended_at,
        )
    except Malformed as fault:
        return Refused(name, dropped, Status.MALFORMED, fault.message)


def write(kernel: Kernel, left: Left) -> None:
    """Put what is taken into `intents/`; where hosts share a store, `note` gives it to one of them.

    Raises:
        Unwritable: the disk is full, or the folder not ours.
    """
    if kernel.shared is not None or not left.taken:
        return
    files.make_folder(kernel.intents_dir)
    for name, content in left.taken:
        files.create(os.path.join(kernel.intents_dir, name), content)


def note(kernel: Kernel, cycle: Cycle, left: Left) -> None:
    """Note and tell what is refused. Inside the transaction that settles the cycle."""
    now = kernel.now()
    if kernel.shared is not None:
        kernel.shared.give_intents(left.taken, now=now)
    for one in left.refused:
        name = inbox.key_of(f"{folder_name(cycle.cycle)}/{one.name}")
        intent = one.dropped.intent if one.dropped is not None else None
        refused = PendingIntent(
            name=name,
            intent_type="" if intent is None else intent.intent_type,
            priority=0 if intent is None else intent.priority,
            category=Category.UNKNOWN,
            topic="",
            content_sha="" if one.dropped is None else one.dropped.content_sha,
            checksummed=intent is None or intent.checksummed,  # of what is no intent, nobody misses it
            since=now,
        )
        inbox.conclude(kernel.db, refused, one.status, reason=one.reason, now=now, cycle=cycle.cycle)
        log(Event.INTENTS_DROPPED, f"{name} is refused: {one.reason}", priority=Priority.WARNING, cycle=cycle.cycle)
