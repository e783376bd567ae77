"""Programs of the operator's that the bridge asks: one at a time, off the event loop, with a deadline.

What they are to look at lies in a file, named by a variable of their environment; what they print is their answer. They
run like everything else that this program starts (`host/process.py`): without a shell, standard input or leftovers.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from orchestration.host import process

_MOST_OUTPUT: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answered:
    """What a program said: its exit code, None when it was ended, and what it printed."""

    code: int | None
    output: str
    how: str


@dataclass(slots=True)
class Program:
    """One command of the settings, and its turn: the runner's care for orphans is made for one command at a time."""

    command: tuple[str, ...]
    timeout: timedelta
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ask(self, variable: str, document: str) -> Answered:
        """Run it with a document, whose path is in a variable.

        Raises:
            KlorosError: it could not be started, or its keeper was killed.
        """
        async with self._turn:
            return await asyncio.to_thread(self._run, variable, document)

    def _run(self, variable: str, document: str) -> Answered:
        with tempfile.TemporaryDirectory(prefix="kloros-bridge-") as folder:
            given, printed = Path(folder, "given.json"), Path(folder, "printed")
            given.write_text(document, encoding="utf-8")
            ended = process.run(
                self.command,
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", variable: str(given)},
                cwd=folder,
                output=str(printed),
                output_limit=_MOST_OUTPUT,
                timeout=self.timeout,
            )
            text = printed.read_text(encoding="utf-8", errors="replace")
            return Answered(None if ended.timed_out else ended.returncode, text, ended.describe())
