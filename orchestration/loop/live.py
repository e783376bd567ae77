"""The loop's live line by rich: how far the timeout is used up as a bar, then the text. Imported on a terminal only."""

from __future__ import annotations

from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_BAR_WIDTH = 20


class Line(Protocol):
    """A line at the end of what a terminal shows. Raises OSError when the terminal has gone."""

    def show(self, text: str, done: float | None, /) -> None:
        """Put a text where the last one was; `done` (0 to 1) is the part of the timeout that is used up."""
        ...

    def print(self, text: str, /) -> None:
        """Write a line that stays, above."""
        ...

    def close(self) -> None:
        """Take the line away."""
        ...


class RichLine:
    """The line, drawn when it is told and by no thread."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def show(self, text: str, done: float | None) -> None:
        """Put a text where the last one was, behind a bar if something is done in part."""
        if not self._live.is_started:
            self._live.start()
            self._console.show_cursor(True)  # a kill would leave the terminal without one
        line = Table.grid(padding=(0, 1), expand=False)
        words = Text(text, no_wrap=True, overflow="ellipsis")
        if done is None:
            line.add_row(words)
        else:
            line.add_row(ProgressBar(total=1.0, completed=done, width=_BAR_WIDTH), words)
        self._live.update(line, refresh=True)

    def print(self, text: str) -> None:
        """Write a line that stays, above."""
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Take the line away."""
        self._live.stop()
