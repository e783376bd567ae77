"""Sightings: lines of a cycle's output that a rule of the observer watches for.

The runner looks through the output once, when the command has ended, and notes what it saw together with the cycle's end;
no tick opens a log for it. Bounded: what was kept of the output is read once, in pieces of whole lines, within
`MOST_SECONDS`; of each rule the first `NAMED` lines are kept, and all are counted. A line that is longer than a piece is
looked at in pieces.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from orchestration.cycles.cycle import CycleNumber
from orchestration.host import clock
from orchestration.store.instants import to_text
from orchestration.store.port import Database

NAMED: Final = 5
MOST_SECONDS: Final = 10.0
_LONGEST: Final = 300  # characters of a line that is kept
_PIECE: Final = 1 << 20


class Sighting(NamedTuple):
    """What one rule saw."""

    number: int  # of lines
    lines: tuple[str, ...]  # the first of them


class _Sighted:
    """What one rule has seen so far."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern, re.MULTILINE)
        self.number = 0
        self.lines: list[str] = []

    def look(self, text: str) -> None:
        """Count the lines of a text that match anywhere."""
        position = 0
        while found := self._pattern.search(text, position):
            begin, end = text.rfind("\n", 0, found.start()) + 1, text.find("\n", found.start())
            end = len(text) if end < 0 else end
            self.number += 1
            if len(self.lines) < NAMED:
                self.lines.append(_shown(text[begin:end]))
            position = end + 1
            if position > len(text):
                return


def look(output: str, patterns: Mapping[str, str]) -> dict[str, Sighting]:
    """Look through an output file for each rule's pattern; rules that saw nothing are left out. Never raises OSError."""
    rules = {name: _Sighted(pattern) for name, pattern in patterns.items()}
    until = clock.monotonic() + MOST_SECONDS
    for text in _pieces(output) if rules else ():
        for rule in rules.values():
            rule.look(text)
        if clock.monotonic() > until:
            break
    return {name: Sighting(rule.number, tuple(rule.lines)) for name, rule in rules.items() if rule.number}


def note(db: Database, cycle: CycleNumber, seen: Mapping[str, Sighting]) -> None:
    """Keep what was seen, and have the observer's rules asked. Inside the transaction that ends the cycle.

    The instant is that of the transaction, which nobody else writes in, so that no rule looks past it.
    """
    at = to_text(clock.now())
    for rule, one in seen.items():
        db.run("observer.see", cycle=cycle, rule=rule, at=at, number=one.number, lines=json.dumps(one.lines))
    if seen:
        db.run("facts.observer_news", now=at)


def _pieces(path: str) -> Iterator[str]:
    """Give a file in pieces that end with a line's end, as long as there is one."""
    try:
        with open(path, "rb") as file:
            left, kept = os.fstat(file.fileno()).st_size, b""
            while left > 0 and (read := file.read(min(_PIECE, left))):
                left -= len(read)
                whole, end, rest = (kept + read).rpartition(b"\n")
                if not end and len(rest) < _PIECE and left > 0:
                    kept = rest
                    continue
                yield (whole if end else rest).decode("utf-8", "replace")
                kept = rest if end else b""
            if kept:
                yield kept.decode("utf-8", "replace")
    except OSError:
        return


def _shown(line: str) -> str:
    shown = "".join(one if one.isprintable() else " " for one in line[: _LONGEST * 2]).strip()
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
