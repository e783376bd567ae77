"""What the loop shows: a live line on a terminal, a plain line per iteration when piped, or rows of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TextIO

from orchestration.host import journal

if TYPE_CHECKING:
    from orchestration.loop.live import Line

_SHOWN = 5


class Screen:
    """The loop's output."""

    def __init__(self, *, as_json: bool, out: TextIO = sys.stdout) -> None:
        """Show on `out`; rows of JSON when asked, and then nothing else."""
        self._as_json = as_json
        self._out = out
        self._line = _live(out) if out.isatty() and not as_json else None
        if self._line is not None:
            journal.share_terminal()
        self._last: deque[str] = deque(maxlen=_SHOWN)

    def runs(self, iteration: int, what: str, elapsed: timedelta, timeout: timedelta) -> None:
        """Show that an iteration is at work."""
        text = f"iteration {iteration}  {what} {_whole(elapsed)} of {_whole(timeout)}"
        self._show(text, min(1.0, elapsed / timeout))

    def waits(self, what: str, until: datetime | None, left: timedelta) -> None:
        """Show what the next iteration waits for."""
        if until is not None and left:
            what = f"next run {until:%H:%M:%SZ}, in {_whole(left)}"
        self._show(what, None)

    def ended(self, row: dict[str, Any]) -> None:
        """Show an iteration that has ended."""
        self._last.append(row["status"])
        if self._as_json:
            self._print(json.dumps(row))
            return
        cycle = "" if row["cycle"] is None else f"  cycle {row['cycle']}"
        archive = f"  new archive {row['archive_path']}" if row["archive_created"] else ""
        failed = "".join(f"  {one['name']}: {one['detail']}" for one in row["prerequisites"] if not one["passed"])
        seconds = f"{row['duration_seconds']:.1f} s"
        text = f"{row['started_at']}  iteration {row['iteration']}{cycle}  {row['status']}  {seconds}{archive}{failed}"
        self._print(_printable(text))

    def close(self) -> None:
        """Take the live line away."""
        if self._line is not None:
            try:
                self._line.close()
            except OSError:
                self._leave()

    def _show(self, text: str, done: float | None) -> None:
        if self._line is None:
            return
        try:
            self._line.show(f"{text}  last: {' '.join(self._last)}" if self._last else text, done)
        except OSError:
            self._leave()

    def _print(self, text: str) -> None:
        try:
            if self._line is not None:
                self._line.print(text)
            else:
                self._out.write(f"{text}\n")
                self._out.flush()
        except OSError:
            self._leave()

    def _leave(self) -> None:
        """Show nothing more: who read has gone, a pipe or a terminal; the loop goes on.

        What is still buffered goes to the null device too, or Python would end with 120 for it.
        """
        self._line = None
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._out.fileno())
        os.close(nothing)


def _live(out: TextIO) -> Line:
    """Return a line by rich where that is installed (the extra `live`), else a plain one."""
    try:
        from orchestration.loop.live import RichLine
    except ImportError:
        return PlainLine(out)
    return RichLine(out)


class PlainLine:
    """One line that is written over itself."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, text: str, _done: float | None) -> None:
        """Put a text where the last one was, cut to the terminal's width."""
        self._write(text[: self._width() - 1])

    def print(self, text: str) -> None:
        """Write a line that stays."""
        self._write(f"{text}\n")

    def close(self) -> None:
        """Take the line away."""
        self._write("")

    def _write(self, text: str) -> None:
        self._out.write(f"\r\033[K{text}")
        self._out.flush()

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._out.fileno()).columns or 80
        except OSError:  # it has been closed
            return 80


def _whole(span: timedelta) -> str:
    return str(timedelta(seconds=int(span.total_seconds())))


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
