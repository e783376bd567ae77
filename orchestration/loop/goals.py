"""The goal of the next iteration: from the settings, or from the intents that wait in the inbox.

There is one inbox and one set of rules for it, the tick's (`intents/inbox.py`), which the loop applies as a tick does, under
the tick's lock: expiry, deduplication, overflow. Ticks leave intents that are goals where they are, and a second loop is
turned away, so nobody else takes one. An intent is answered in the transaction that queues its cycle, not before: when the
prerequisites fail, or the loop is killed, it waits on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestration.cycles.cycle import CycleNumber
from orchestration.errors import KlorosError, Usage
from orchestration.host import clock
from orchestration.host.journal import Event, Priority, log
from orchestration.intents import inbox
from orchestration.intents.intent import PendingIntent, Status
from orchestration.loop.holding import holding, leading
from orchestration.loop.schedule import goals_of, next_goal
from orchestration.tick import take_in

if TYPE_CHECKING:
    from orchestration.loop.place import Place
    from orchestration.settings import Loop
    from orchestration.tick.kernel import Kernel

_LONGEST: Final = 4000  # characters; a goal becomes a variable and an argument
_LOOKS_AGAIN: Final = (
    5.0  # seconds after which files that lay there before are looked at again: they expire, or are finished
)


class Goals:
    """The goals of one loop."""

    def __init__(self, kernel: Kernel, settings: Loop, place: Place) -> None:
        self._kernel, self._settings, self._file = kernel, settings, place.goal_file
        self._folder = kernel.intents_dir
        self._seen: tuple[list[str], float] | None = None  # names at the last look, and when to look again
        self._intent: PendingIntent | None = None

    def are_there(self) -> bool:
        """Look for the goal of the next iteration; tell whether it may begin.

        Raises:
            Unwritable: the inbox can't be used.
        """
        if self._settings.goal_from == "settings":
            return True
        if not self._look():
            return False
        return self._intent is not None or bool(self._settings.goal or self._file)

    def of_settings(self) -> tuple[str, ...]:
        """Return the goals of the settings; none while an intent has the next one.

        Raises:
            Usage: the file of goals can't be read, or has none.
        """
        if self._intent is not None:
            return ()
        if not self._file:
            return (self._settings.goal,)
        try:
            with open(self._file, encoding="utf-8") as file:
                goals = goals_of(file.read())
        except (OSError, ValueError) as error:
            hint = "correct goal_file (--goal-file)"
            raise Usage(f"{self._file}: the goals can't be read: {error}", hint=hint) from error
        if not goals:
            raise Usage(f"{self._file} has no goal in it", hint="write one goal a line")
        return goals

    def next(self, goals: tuple[str, ...], iteration: int) -> str:
        """Return the goal of an iteration: the waiting intent's, or one of these."""
        if self._intent is not None:
            return self._intent.topic
        return next_goal(goals, iteration=iteration, order=self._settings.goal_order, seed=self._settings.seed)

    @property
    def intent(self) -> str:
        """The name of the intent that has the next goal; empty when none has."""
        return "" if self._intent is None else self._intent.name

    def stands(self) -> bool:
        """Tell whether the intent, if the goal is one's, still waits with the same content. Under the tick's lock."""
        ours = self._intent
        if ours is None:
            return True
        self._seen = None
        now = self._sort_out()
        return any((one.name, one.content_sha) == (ours.name, ours.content_sha) for one in now)

    def answer(self, cycle: CycleNumber) -> None:
        """Note that the intent, if the goal is one's, has its cycle. Inside the transaction that queues it."""
        if self._intent is not None:
            reason = f"a goal of the loop: started cycle {cycle}"
            inbox.conclude(self._kernel.db, self._intent, Status.PROCESSED, reason=reason, now=clock.now(), cycle=cycle)

    def file_away(self) -> None:
        """Move the file of the answered intent; whoever looks next does it if we can't. After the commit, under the lock."""
        answered, self._intent, self._seen = self._intent, None, None
        if answered is None:
            return
        try:
            self._move(inbox.NOTHING)
        except KlorosError as error:
            message = f"intent {answered.name} is answered, its file not moved yet: {error.message}"
            log(Event.LOOP_ITERATED, message, priority=Priority.WARNING)

    def _look(self) -> bool:
        """Look into the inbox, if it may have changed since the last time; False when a tick is at it."""
        names, now = inbox.list_names(self._folder), clock.monotonic()
        if self._seen is not None and self._seen[0] == names and (not names or now < self._seen[1]):
            return True
        with holding(self._kernel) as ours:
            if not ours:
                return False
            self._intent = next(iter(self._sort_out()), None)
        self._seen = (inbox.list_names(self._folder), now + _LOOKS_AGAIN)
        return True

    def _sort_out(self) -> tuple[PendingIntent, ...]:
        """Apply the rules of the inbox, answer goals that are none, and return the others, next first.

        Where hosts share a store the inbox is that of them all, and whoever leads decides on it: none on any other host.
        """
        with leading(self._kernel) as leads:
            return self._decide() if leads else ()

    def _decide(self) -> tuple[PendingIntent, ...]:
        db = self._kernel.db
        with db.transaction():
            found = inbox.sort_out(self._folder, db, clock.now(), self._kernel.settings.intents)
            faults = {one: fault for one in found.goals if (fault := _fault_of(one.topic))}
            for one, fault in faults.items():
                inbox.conclude(db, one, Status.FAILED, reason=fault, now=clock.now())
        take_in.tell_dropped(found.verdicts)
        for one, fault in faults.items():
            log(
                Event.INTENTS_DROPPED, f"failed: intent {one.name}: {fault}", priority=Priority.WARNING, status=Status.FAILED
            )
        self._move(found)
        return tuple(one for one in found.goals if one not in faults)

    def _move(self, found: inbox.Sorted) -> None:
        if found.verdicts or self._kernel.db.rows("intents.open"):
            from orchestration.intents import filing

            notes = self._kernel.settings.state_dir if self._kernel.shared is None else None  # whose file it is notes it
            filing.file_away(self._folder, notes, self._kernel.db, found)


def _fault_of(goal: str) -> str:
    if not goal:
        return 'it names no goal; write it as "data": {"goal": "…"}'
    return f"its goal has {len(goal)} characters, {_LONGEST} are allowed" if len(goal) > _LONGEST else ""
