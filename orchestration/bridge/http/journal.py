"""Log lines of requests that went well: written beside the event loop, as many as a journal takes, the rest counted.

A line costs as much as a third of a request. One thread writes them, at a pace that journald lets one service have (10,000
in 30 s, journald.conf(5), of which refusals and defects must find room); who asks more often than that is counted instead,
and one line says how many there were. Lines of anything that went wrong never come this way.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

from orchestration.host.journal import Event, Priority, log

MOST_WAITING: Final = 2000
PACE: Final = 200
"""Lines a second."""
_TOGETHER: Final = 20


class AnswerLog:
    """The lines, and the thread that writes them; it starts with the first."""

    def __init__(self, *, pace: float = PACE, most: int = MOST_WAITING) -> None:
        """Write at a pace, in lines a second; let so many wait at most."""
        self.dropped = 0
        """Lines that were not written, since the start."""
        self._pace, self._most = pace, most
        self._lines: deque[tuple[str, dict[str, Any]]] = deque()
        self._told = 0
        self._some = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        """Whether as many lines wait as may: then one more is to be dropped, best before it is made."""
        return len(self._lines) >= self._most

    def drop(self) -> None:
        """Count a line instead of writing it."""
        self.dropped += 1

    def take(self, message: str, fields: dict[str, Any]) -> None:
        """Have a line written."""
        self._lines.append((message, fields))
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="bridge-log", daemon=True)
            self._thread.start()
        if not self._some.is_set():
            self._some.set()

    def end(self) -> None:
        """Write what waits, however much it is, and end."""
        self._ended.set()
        self._some.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self) -> None:
        while not self._ended.is_set():
            self._some.wait()
            self._some.clear()
            while self._lines and not self._ended.wait(_TOGETHER / self._pace):  # a thread that wakes up costs the others
                self._write_some(_TOGETHER)
        self._write_some(len(self._lines))

    def _write_some(self, most: int) -> None:
        for _ in range(min(most, len(self._lines))):
            message, fields = self._lines.popleft()
            log(Event.REQUEST_ANSWERED, message, priority=fields.pop("priority"), **fields)
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        if new := self.dropped - self._told:
            self._told += new
            told = f"{new} requests were answered without a line of their own: more came than the journal takes"
            log(Event.REQUEST_ANSWERED, told, priority=Priority.NOTICE, lines=new)
