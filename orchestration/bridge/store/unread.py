"""How much was unread when it was last counted, so that no message is looked at twice to count it. Pure.

Messages stay as they are, and new ones get higher numbers: what was counted from a cursor up to some number is so for good,
and only what has come since is left to count. To keep the count in a table instead, every post would write one row more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from orchestration.bridge.store import rows

_FAR: Final = 1000
"""From how many messages after the cursor on a count is kept: fewer are counted as quickly."""
_MOST_PLACES: Final = 512


class _Counted(NamedTuple):
    """In the order in which the queries of bridge.sql take it."""

    cursor: int
    through: int
    unread: int


class Unread:
    """What was counted for participants who are far behind, own posts included. Forgetting costs no more than a count."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], _Counted] = {}

    def in_thread(self, thread_id: str) -> str:
        """Return what was counted in a thread, as JSON by agent."""
        return rows.written({agent: counted for (thread, agent), counted in self._places.items() if thread == thread_id})

    def of_reader(self, agent_id: str) -> str:
        """Return what was counted for an agent, as JSON by thread."""
        return rows.written({thread: counted for (thread, agent), counted in self._places.items() if agent == agent_id})

    def keep(self, thread_id: str, agent_id: str, row: rows.Found) -> None:
        """Keep what a query has counted, where it may have taken long."""
        cursor, last = row["last_read_seq"], row["last_seq"]
        if cursor is None or last - cursor < _FAR:
            self._places.pop((thread_id, agent_id), None)
            return
        if len(self._places) >= _MOST_PLACES:
            self._places.clear()
        self._places[thread_id, agent_id] = _Counted(cursor, last, min(row["unread"], rows.MOST_UNREAD))
