"""The bridge's side of the process that writes to SQLite beside it (`sqlite_process.py`)."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias, cast

from orchestration.bridge.store import sqlite_process
from orchestration.bridge.store.sqlite_process import FAILED, REFUSED, UP
from orchestration.host.journal import Event, Priority, log

Answered: TypeAlias = Callable[[bytes, Exception | None], None]
_AGAIN: Final = 60.0
"""Seconds until a process that did not come up, or has gone, is tried again."""
_UNHEARD: Final = 15.0
"""Seconds after which one that has not answered is killed: five times what it waits for a lock."""
_LOOK: Final = 1.0


class NotWritten(Exception):
    """Nothing of a batch was written; why is found out under lock."""


class Gone(Exception):
    """The process ended before it answered."""


class Beside(asyncio.Protocol):
    """A process that writes one batch after the other; belongs to the event loop that starts it.

    It is only ever a quicker way: whoever finds it gone, or not up yet, writes for itself.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._starting: asyncio.Task[None] | None = None
        self._asked: deque[Answered] = deque()
        self._since = 0.0
        """When it was asked, or answered the one before: it takes them one after the other."""
        self._not_before = 0.0
        self._closing = False
        self.is_up = False

    @property
    def waited(self) -> float:
        """Seconds that it has been about what it was asked first."""
        return time.monotonic() - self._since

    def start(self) -> None:
        """Have it come up, unless it is or did not lately; returns at once."""
        if not self.is_up and self._process is None and not self._closing and time.monotonic() >= self._not_before:
            self._not_before = time.monotonic() + _AGAIN
            self._starting = self._loop.create_task(self._start())

    def ask(self, frame: bytes, answered: Answered) -> None:
        """Have a batch written after those before, framed as `sqlite_process.framed` does it; call back once.

        The answer is that of the process; the error `NotWritten`, or `Gone` where nobody can tell before `end`.
        """
        assert self._transport is not None
        if not self._asked:
            self._since = time.monotonic()
        self._asked.append(answered)
        self._transport.write(frame)

    def end(self) -> None:
        """Return once no process is there any more that could write; may be called in any thread."""
        if (process := self._process) is not None:
            process.kill()
            process.wait()
            self._process = None

    async def close(self) -> None:
        """Have it end."""
        self._closing = True
        if self._starting is not None:
            await self._starting
        if self._transport is not None:
            self._transport.close()
        await asyncio.to_thread(self._reaped)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have the way to it."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Take its answers, a byte each."""
        if data == UP:
            self.is_up = True
            self._attend()
            return
        for answer in map(bytes, zip(data, strict=True)):
            answered = self._asked.popleft()
            answered(answer, NotWritten() if answer in (REFUSED, FAILED) else None)
            self._since = time.monotonic()

    def connection_lost(self, error: Exception | None) -> None:
        """Take note that it has ended: it closes its end by that alone."""
        if not self._closing:
            how = "has ended" if self.is_up else "did not come up"
            told = f"the process that writes to the store beside the bridge {how}; the bridge writes by itself meanwhile"
            log(Event.BRIDGE_FAILED, told, priority=Priority.WARNING)
        self.is_up, self._transport = False, None
        if not self._asked and not self._closing:
            self._loop.run_in_executor(None, self.end)
        while self._asked:
            self._asked.popleft()(b"", Gone("it has ended"))

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                command = [sys.executable, "-P", "-m", sqlite_process.__name__, self._path]
                self._process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
            except OSError as error:
                ours.close()
                log(Event.BRIDGE_FAILED, f"can't start a process to write: {error}", priority=Priority.WARNING)
                return
        ours.setblocking(False)
        await self._loop.create_connection(lambda: self, sock=ours)

    def _attend(self) -> None:
        """Kill one that is stuck: what it was asked for is then looked for, and done, by others."""
        if self._transport is None:
            return
        if self._asked and self.waited > _UNHEARD and self._process is not None:
            self._process.kill()
        self._loop.call_later(_LOOK, self._attend)

    def _reaped(self) -> None:
        if (process := self._process) is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_UNHEARD)
        self.end()
