"""A cycle's output as it is written: server-sent events, until the cycle has ended and all of it was sent.

Each event's id is the byte offset after it, so a reader that comes back with `Last-Event-ID` misses nothing and gets nothing
twice. One watch per cycle looks at file and store, however many follow it; each follower then reads for itself, at most a
chunk ahead of what its client has taken.

    event: log     data: JSON text; what is no UTF-8 replaced, a character is never torn
    event: reset   the file was cut short or is another one now; what follows begins at its start
    event: end     data: {"state": …}; the reader is done. A reader that comes again for nothing gets 204, which tells
                   an EventSource to stop (https://html.spec.whatwg.org/multipage/server-sent-events.html)
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio.to_thread

from orchestration.pulse.server.files import CHUNK, READS, open_beneath
from orchestration.pulse.server.problem import Problem

if TYPE_CHECKING:
    from orchestration.pulse.server.traffic import Traffic

MOST_FOLLOWERS: Final = 256
_LOOK_AT_FILE: Final = 0.25  # seconds
_LOOK_AT_STORE: Final = 1.0
_STILL_HERE: Final = 15.0  # a comment as often as this: proxies close what is silent, and a reader that is gone is noticed
_LONGEST_CHARACTER: Final = 4  # bytes, in UTF-8


class Followed(NamedTuple):
    """One log that can be followed."""

    cycle: int
    folder: str  # the cycle's
    path: str  # beneath it
    state: Callable[[], Awaitable[str | None]]  # the state of the cycle once it has ended, else None

    @property
    def file(self) -> str:
        """The absolute path."""
        return os.path.join(self.folder, self.path)


@dataclass(slots=True)
class _Watch:
    """What is known of one log at this moment."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: str | None = None
    followers: int = 0
    task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """Wake all who wait, and begin a new wait."""
        woken, self.changed = self.changed, asyncio.Event()
        woken.set()


class Following:
    """Every open stream of this process."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._watches: dict[str, _Watch] = {}
        self._followers = 0
        self._stopping = False

    def stop(self) -> None:
        """End every stream; its readers come again when somebody listens again, and miss nothing."""
        self._stopping = True
        for watch in self._watches.values():
            watch.tell()

    def admit(self) -> None:
        """Refuse one follower too many.

        Raises:
            Problem: 503.
        """
        if self._followers >= MOST_FOLLOWERS:
            told = f"{self._followers} readers follow logs already, as many as may"
            raise Problem(503, told, hint="close some, or read the log without follow", headers={"retry-after": "30"})

    async def events(self, log: Followed, offset: int) -> AsyncIterator[bytes]:
        """Give the events from a byte offset on."""
        reader = _Reader(log, offset)
        async with self._watched(log) as watch:
            try:
                yield b"retry: 2000\n\n"
                while not self._stopping:
                    changed, ended = watch.changed, watch.ended
                    events = await anyio.to_thread.run_sync(reader.read, ended is not None, limiter=READS)
                    for event in events:
                        yield event
                    if events:
                        continue
                    if ended is not None:
                        yield _event("end", json.dumps({"state": ended}), reader.offset)
                        return
                    if not await _within(changed, _STILL_HERE):
                        yield b": still here\n\n"
            finally:
                reader.close()

    @asynccontextmanager
    async def _watched(self, log: Followed) -> AsyncIterator[_Watch]:
        watch = self._watches.setdefault(log.file, _Watch())
        watch.followers += 1
        self._count(1)
        if watch.task is None:
            watch.task = asyncio.get_running_loop().create_task(self._look(log, watch))
        try:
            yield watch
        finally:
            watch.followers -= 1
            self._count(-1)
            if not watch.followers:
                self._watches.pop(log.file, None)
                watch.task.cancel()

    def _count(self, by: int) -> None:
        self._followers += by
        self._traffic.followers(self._followers)

    async def _look(self, log: Followed, watch: _Watch) -> None:
        """Wake the followers when the file changes or the cycle ends."""
        loop = asyncio.get_running_loop()
        known, asked = None, 0.0
        while watch.ended is None:
            if loop.time() - asked >= _LOOK_AT_STORE:
                asked = loop.time()
                with suppress(Exception):  # a store that can't be read now is asked again; the file is read all the same
                    watch.ended = await log.state()
            found = _identity(log.file)
            if found != known or watch.ended is not None:
                known = found
                watch.tell()
            await asyncio.sleep(_LOOK_AT_FILE)


class _Reader:
    """One follower's place in the file. Used by one thread at a time."""

    def __init__(self, log: Followed, offset: int) -> None:
        self.offset = offset
        self._log = log
        self._descriptor: int | None = None

    def read(self, ended: bool) -> list[bytes]:
        """Return the next events; none when all that is there has been given."""
        if self._descriptor is None:
            try:
                self._descriptor = open_beneath(self._log.folder, self._log.path)
            except OSError:
                return []
        found = os.fstat(self._descriptor)
        if found.st_size < self.offset:
            return [self._reset("cut short")]
        part = os.pread(self._descriptor, CHUNK, self.offset)
        last = ended or self._is_another(found)
        whole = part if last and len(part) < CHUNK else _whole(part)
        if whole:
            self.offset += len(whole)
            return [_event("log", json.dumps(whole.decode("utf-8", "replace")), self.offset)]
        if self._is_another(found):
            self.close()
            return [self._reset("replaced")]
        return []

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_another(self, found: os.stat_result) -> bool:
        now = _identity(self._log.file)
        return now is not None and now[:2] != (found.st_dev, found.st_ino)

    def _reset(self, why: str) -> bytes:
        self.offset = 0
        return _event("reset", json.dumps({"reason": why}), 0)


def _whole(part: bytes) -> bytes:
    """Leave out a character that has only begun at the end."""
    for back in range(1, min(_LONGEST_CHARACTER, len(part) + 1)):
        byte = part[-back]
        if byte >= 0xC0:  # it begins one
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return part if back >= length else part[:-back]
        if byte < 0x80:
            return part
    return part


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size)


def _event(name: str, data: str, offset: int) -> bytes:
    return f"id: {offset}\nevent: {name}\ndata: {data}\n\n".encode()


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
