"""What the loop shows: a live line on a terminal, a plain line per iteration when piped, or rows of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from datetime import datetime, timedelta
from typing import Any, TextIO

_SHOWN = 5


class Screen:
    """The loop's output."""

    def __init__(self, *, as_json: bool, out: TextIO = sys.stdout) -> None:
        """Show on `out`; rows of JSON when asked, and then nothing else."""
        self._as_json = as_json
        self._out = out
        self._live = out.isatty() and not as_json
        self._last: deque[str] = deque(maxlen=_SHOWN)

    def runs(self, iteration: int, what: str, elapsed: timedelta, timeout: timedelta) -> None:
        """Show that an iteration is at work."""
        self._line(f"iteration {iteration}  {what} {_whole(elapsed)} of {_whole(timeout)}")

    def waits(self, until: datetime, left: timedelta) -> None:
        """Show when the next iteration starts."""
        self._line(f"next run {until:%H:%M:%SZ}, in {_whole(left)}")

    def ended(self, row: dict[str, Any]) -> None:
        """Show an iteration that has ended."""
        self._last.append(row["status"])
        if self._as_json:
            self._write(json.dumps(row) + "\n")
            return
        cycle = "" if row["cycle"] is None else f"  cycle {row['cycle']}"
        archive = f"  new archive {row['archive_path']}" if row["archive_created"] else ""
        failed = "".join(f"  {one['name']}: {one['detail']}" for one in row["prerequisites"] if not one["passed"])
        seconds = f"{row['duration_seconds']:.1f} s"
        text = f"{row['started_at']}  iteration {row['iteration']}{cycle}  {row['status']}  {seconds}{archive}{failed}"
        self._write(f"{self._clear()}{_printable(text)}\n")

    def close(self) -> None:
        """Take the live line away."""
        if self._live:
            self._write(self._clear())

    def _line(self, text: str) -> None:
        if self._live:
            last = f"  last: {' '.join(self._last)}" if self._last else ""
            self._write(self._clear() + (text + last)[: self._width() - 1])

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._out.fileno()).columns or 80
        except OSError:  # it has been closed
            return 80

    def _clear(self) -> str:
        return "\r\033[K" if self._live else ""

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:  # who read has gone, a pipe or a terminal; the loop goes on
            self._live = False
            self._out = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process


def _whole(span: timedelta) -> str:
    return str(timedelta(seconds=int(span.total_seconds())))


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
