"""How things look to a person: colours, times in two zones, spans, tables that fit the screen.

Colours and wrapping are for terminals only; into a pipe or a file goes plain text, one record a line.
NO_COLOR: https://no-color.org
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import click

from orchestration.pulse.dashboard import wording

_GOOD, _BAD, _WAIT = "green", "red", "yellow"
_COLOURS = {
    **dict.fromkeys(("succeeded", "accepted", "ok", "enabled", "phase", "dream_cycle", "reflection", "processed"), _GOOD),
    **dict.fromkeys(("failed", "timed_out", "lost", "error", "rejected", "refused", "malformed"), _BAD),
    **dict.fromkeys(("queued", "running", "warning", "parked", "disabled", "cancelled", "skipped"), _WAIT),
    **dict.fromkeys(("failing", "stopped"), _BAD),
    **dict.fromkeys(("degraded", "unknown"), _WAIT),
}
_ROOM = 24  # columns below which a last column is not worth being one


class Screen:
    """Where text for a person goes."""

    def __init__(self, *, colours: bool, width: int | None) -> None:
        """`width` None: nothing is wrapped."""
        self.colours = colours
        self.width = width

    @classmethod
    def of_stdout(cls, environ: Mapping[str, str]) -> Screen:
        """Find out what stdout can show."""
        terminal = sys.stdout.isatty()
        colours = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        return cls(colours=colours, width=max(40, min(shutil.get_terminal_size().columns, 120)) if terminal else None)

    def print(self, lines: Iterable[str]) -> None:
        """Print lines."""
        for line in lines:
            click.echo(line, color=self.colours)

    def style(self, text: str, *, fg: str | None = None, bold: bool = False, dim: bool = False) -> str:
        """Colour a text where colours are wanted."""
        wanted = self.colours and (fg or bold or dim)
        # None, because a False is written too, as a code that takes the other back.
        return click.style(text, fg=fg, bold=bold or None, dim=dim or None) if wanted else text

    def state(self, word: str, shown: str | None = None) -> str:
        """Write a state in the colour of what it means."""
        return self.style(shown or word, fg=_COLOURS.get(word.strip()))

    def heading(self, text: str) -> str:
        """Write a heading."""
        return self.style(text, bold=True)

    def alarm(self, text: str) -> list[str]:
        """Write what must not be overlooked."""
        return [self.style(line, fg=_BAD, bold=True) for line in self.wrap(text, first="!! ", rest="   ")]

    def wrap(self, text: str, *, first: str = "", rest: str = "") -> list[str]:
        """Break a text into lines that fit; a name or path that does not fit stays whole, to be copied."""
        text = plain(text)
        if self.width is None:
            return [first + text]
        return textwrap.wrap(
            text, self.width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
        ) or [first.rstrip()]

    def field(self, name: str, text: str, *more: str) -> list[str]:
        """Write `Name      text`, with further texts below it."""
        pad = " " * 11
        label = self.style(f"{name:<10} ", bold=True) if name else pad
        lines: list[str] = []
        for number, part in enumerate((text, *more)):
            if "\x1b" in part:
                lines.append((pad if number else label) + part)
                continue
            wrapped = self.wrap(part, first=pad, rest=pad)
            lines += wrapped if number else [label + wrapped[0][11:], *wrapped[1:]]
        return lines

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
        """Write a table. The last column takes the room that is left; where that is too little, it goes below its row."""
        body = [[plain(cell) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in (header, *body)) for column in range(len(header) - 1)]
        below = self.width is not None and self._is_narrow(self.width - sum(widths) - 2 * len(widths), body)
        lines = [self.style(line, dim=True) for line in self._row(header[:-1] if below else header, widths)]
        for row in body:
            lines += self._row(row[:-1] if below else row, widths, states=True)
            lines += self.wrap(row[-1], first="    ", rest="    ") if below and row[-1] else []
        return lines

    @staticmethod
    def _is_narrow(room: int, body: list[list[str]]) -> bool:
        """Tell whether the last column would be cramped, or have to break a name."""
        return room < _ROOM or any(len(word) > room for row in body for word in row[-1].split())

    def _row(self, row: Sequence[str], widths: Sequence[int], *, states: bool = False) -> list[str]:
        cells = [f"{cell:<{width}}  " for cell, width in zip(row[:-1], widths, strict=False)]
        head = sum(map(len, cells))
        room = None if self.width is None else max(10, self.width - head)
        last = (
            [row[-1]]
            if room is None
            else textwrap.wrap(row[-1], room, break_on_hyphens=False, break_long_words=False) or [""]
        )
        shown = "".join(self.state(cell.strip(), cell) if states else cell for cell in cells)
        return [f"{shown}{last[0]}".rstrip(), *(f"{' ' * head}{line}" for line in last[1:])]


class Times:
    """How instants are written: local to the window with the zone named, and in UTC."""

    def __init__(self, zone: str, now: datetime) -> None:
        """`zone` is an IANA name; `now` is aware."""
        self.name = zone
        self.zone = ZoneInfo(zone)
        self.now = now

    def both(self, instant: datetime, *, seconds: bool = True) -> str:
        """Write `2026-11-21 03:00:00 EST = 08:00:00 UTC`; the UTC date is there when it is another."""
        local, utc = instant.astimezone(self.zone), instant.astimezone(UTC)
        clock = "%H:%M:%S" if seconds else "%H:%M"
        if self.name in ("UTC", "Etc/UTC"):
            return f"{utc:%Y-%m-%d {clock}} UTC"
        date = "" if utc.date() == local.date() else f"{utc:%Y-%m-%d} "
        return f"{local:%Y-%m-%d {clock} %Z} = {date}{utc:{clock}} UTC"

    def columns(self, instant: datetime) -> tuple[str, str]:
        """Write both for a table: local with its zone, and UTC (`08:00:00Z`)."""
        local, utc = instant.astimezone(self.zone), instant.astimezone(UTC)
        day = "" if utc.date() == local.date() else f"+{(utc.date() - local.date()).days}d"
        return f"{local:%Y-%m-%d %H:%M:%S %Z}", f"{utc:%H:%M:%SZ}{day.replace('+-', '-')}"

    def ago(self, instant: datetime) -> str:
        """Write `42s ago`, or `in 2h 10min` for what is ahead."""
        distance = self.now - instant
        return f"{span(distance)} ago" if distance >= timedelta(0) else f"in {span(-distance)}"


def span(length: timedelta | float) -> str:
    """Write a length of time by its two largest units: `2h 10min`, `42s`; under ten seconds with a tenth."""
    return wording.span(length).replace("\u00a0", "")


def size(number: int) -> str:
    """Write a number of bytes: `1.5 GiB`."""
    return wording.size(number).replace("\u00a0", " ")


def plain(text: str) -> str:
    """Write what others named (files, reasons) without anything that steers a terminal."""
    return "".join(
        c if c.isprintable() else " " if c in "\n\t" else repr(c)[1:-1]
        for c in os.fsencode(text).decode("utf-8", "backslashreplace")
    )
