"""Posts beyond the rate in the audit: of each agent and rule the first of a minute has its own row, the others one count.

Who is refused for its rate can be refused without limit: a row for each, at the price of a request, would fill the disk.
No refusal is left out: those without a row of their own are in the count, which is a row as well, and each has its line in
the log. A process that is killed takes with it what it had counted and not yet written, a minute's at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from orchestration.bridge.caller import Caller
from orchestration.bridge.refusal import Refused


class Whom(NamedTuple):
    """Who was refused by which rule."""

    workspace_id: str
    agent_id: str
    rule: str


@dataclass(slots=True)
class Counted:
    """Refusals that have no row yet."""

    caller: Caller
    """Of the last one."""
    refusal: Refused
    since: datetime
    until: datetime
    refusals: int = 1


class BeyondRate:
    """What one process has refused. Looked at by plans, in any thread; changed by the event loop alone."""

    def __init__(self) -> None:
        self._minutes: dict[Whom, int] = {}
        """The last minute in which somebody has a row."""
        self._counted: dict[Whom, Counted] = {}

    def has_row(self, caller: Caller, refusal: Refused, now: datetime) -> bool:
        """Tell whether one has a row in this minute, so that another needs none."""
        return self._minutes.get(_whom(caller, refusal)) == _minute(now)

    def row_written(self, caller: Caller, refusal: Refused, now: datetime) -> None:
        """Note that one has its row."""
        self._minutes[_whom(caller, refusal)] = _minute(now)

    def count(self, caller: Caller, refusal: Refused, now: datetime) -> None:
        """Count one that has none."""
        self.add(Counted(caller, refusal, now, now))

    def add(self, more: Counted) -> None:
        """Count what has no row; also what could not be written."""
        whom = _whom(more.caller, more.refusal)
        known = self._counted.get(whom)
        if known is not None:
            more.since, more.until = min(known.since, more.since), max(known.until, more.until)
            more.refusals += known.refusals
        self._counted[whom] = more

    def due(self, now: datetime | None) -> list[Counted]:
        """Take out what is to be written: counts of minutes that are over, and all of them without a time."""
        minute = None if now is None else _minute(now)
        over = [whom for whom, one in self._counted.items() if minute is None or _minute(one.since) < minute]
        self._minutes = {whom: at for whom, at in self._minutes.items() if minute is None or at >= minute}
        return [self._counted.pop(whom) for whom in over]


def _whom(caller: Caller, refusal: Refused) -> Whom:
    return Whom(caller.workspace_id, caller.agent_id, refusal.rule)


def _minute(at: datetime) -> int:
    return int(at.timestamp() // 60)
