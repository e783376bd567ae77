"""Getting an entry of ours started outside this process.

Owns the port and the names that may be started. An adapter only brings the entry on its way: that it runs is
seen by its lock and in the store, and a tick asks again as long as something waits (design rule 8). Starting
an entry twice is harmless, since its lock turns the second one away.
"""

from __future__ import annotations

from typing import Final, Protocol

ENTRIES: Final = ("run_cycle", "run_once", "run_notice")


class Launcher(Protocol):
    """Brings an entry on its way and comes back at once."""

    def start(self, entry: str) -> None:
        """Have one of `ENTRIES` started, soon, in a process that outlives this one.

        Raises:
            Usage: no such entry.
            CommandNotStarted: no process to be had.
            Unwritable: the kick or the log file can't be written.
        """
        ...
