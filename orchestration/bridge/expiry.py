"""Takes threads that are over, and older than their workspace keeps them, out of the store; into an archive first.

A thread is written out whole, as `klorosctl threads export` writes it, and the file is safe on disk under its name before
anything is removed. The removal is one transaction, which takes place only if the thread is still what the file says. Killed
anywhere, the next pass writes the same file again and goes on; `klorosctl threads import` brings a thread back.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.wire import ThreadStatus
from orchestration.host import files
from orchestration.host.journal import Event, log

if TYPE_CHECKING:
    from orchestration.bridge.caller import Caller
    from orchestration.bridge.commands import Commands

ALL: Final = "*"
"""Stands for every workspace that is not named."""
_OVER: Final = (ThreadStatus.RESOLVED, ThreadStatus.CLOSED)
_PAGE: Final = 200


class Expired(NamedTuple):
    """One thread that went, or would."""

    thread_id: str
    workspace_id: str
    path: str
    """Of its archive; empty for one that only would go."""


class Expiry:
    """The passes over a store."""

    def __init__(
        self, commands: Commands, keeps: Mapping[str, timedelta], folder: str, *, now: Callable[[], datetime]
    ) -> None:
        """Take how long each workspace keeps its threads (`*`: the others), and where archives go."""
        self._commands, self._keeps, self._folder, self._now = commands, keeps, folder, now

    async def run(self, caller: Caller, *, dry: bool = False) -> list[Expired]:
        """Make one pass as an operator; returns what went. `dry` only looks.

        Raises:
            Unwritable: an archive can't be written. Refused: UNAVAILABLE.
        """
        found: list[Expired] = []
        if not self._keeps:
            return found
        for status in _OVER:
            after = None
            while page := await self._commands.store.threads(workspace_id=None, status=status, after=after, limit=_PAGE):
                for one in page:
                    if (workspace := await self._expired(one.thread_id, one.updated_at)) is not None:
                        gone = (
                            Expired(one.thread_id, workspace, "")
                            if dry
                            else await self._go(caller, one.thread_id, workspace)
                        )
                        found += [gone] if gone else []
                after = page[-1].thread_id
        return found

    async def _expired(self, thread_id: str, changed: datetime) -> str | None:
        """Return the workspace of a thread that is to go."""
        if changed > self._now() - min(self._keeps.values()):
            return None
        row = await self._commands.store.thread(thread_id)
        keep = self._keeps.get(row.workspace_id, self._keeps.get(ALL)) if row else None
        return row.workspace_id if row and keep is not None and row.updated_at <= self._now() - keep else None

    async def _go(self, caller: Caller, thread_id: str, workspace_id: str) -> Expired | None:
        try:
            lines = [line async for line in self._commands.export_thread(caller, thread_id)]
        except Refused as refused:
            if refused.code is Code.NOT_FOUND:  # another process was faster
                return None
            raise
        path, sha256 = await asyncio.to_thread(self._archived, thread_id, workspace_id, lines)
        links = sum(line.startswith('{"line":"audit"') for line in lines)
        if not await self._commands.remove_thread(caller, thread_id, workspace_id, links=links, sha256=sha256):
            return None  # it has changed meanwhile; the next pass looks again
        log(
            Event.THREAD_EXPIRED, f"thread {thread_id} is now in {path}", thread=thread_id, workspace=workspace_id, path=path
        )
        return Expired(thread_id, workspace_id, path)

    def _archived(self, thread_id: str, workspace_id: str, lines: list[str]) -> tuple[str, str]:
        """Write the archive under a name that tells its content: one that was given back once is kept beside it."""
        sha256 = str(json.loads(lines[-1])["sha256"])
        folder = os.path.join(self._folder, workspace_id)
        files.make_folder(folder)
        path = os.path.join(folder, f"{thread_id}.{sha256[:12]}.jsonl")
        with files.writing(path) as file:
            file.writelines(line.encode() for line in lines)
        return path, sha256
