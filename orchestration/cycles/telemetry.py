"""Telemetry: the numbers in a cycle's `logs/*.jsonl`, as series by name.

A line is one JSON object; every finite number in it is a value of the series that its key names, nested keys joined by
dots. Truth values, NaN, infinities, lists and texts are no numbers. A line that is no JSON, or longer than `LONGEST_LINE`,
is damaged: skipped and counted. Files come from commands, so nothing in them may cost more than bounded memory and time: of
a cycle at most `MOST_BYTES` are read, of a longer file its end, and at most `MOST_SERIES` series kept.

Files are read in the order of their names. What a line says of its own time (`timestamp`, `ts` or `time`, ISO 8601 or Unix
seconds or milliseconds) is no series.
"""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, Any, Final, NamedTuple

from orchestration.cycles.cycle import CycleNumber
from orchestration.store.port import Database

LONGEST_LINE: Final = 1 << 20  # bytes
MOST_BYTES: Final = 64 << 20  # of one cycle
MOST_SERIES: Final = 64
MOST_FILES: Final = 100
_LONGEST_NAME: Final = 100
_DEEPEST: Final = 8
_CHUNK: Final = 1 << 16
_CLOCKS: Final = ("timestamp", "ts", "time")
_EARLIEST: Final = 946_684_800.0  # 2000-01-01: a smaller number is no Unix time but a measurement
_LATEST: Final = 4_102_444_800.0  # 2100-01-01


class Figures(NamedTuple):
    """One series of one cycle."""

    last: float
    number: int  # of values
    low: float
    high: float
    total: float

    @property
    def mean(self) -> float:
        """The mean of its values."""
        return self.total / self.number


class Telemetry(NamedTuple):
    """Every series of one cycle, and how many lines could not be read."""

    series: Mapping[str, Figures]
    damaged: int


class Reading(NamedTuple):
    """One line; `values` None: it is damaged."""

    line: int  # of what was read of its file, from 1
    at: datetime | None
    values: Mapping[str, float] | None


NOTHING: Final = Telemetry({}, 0)


def read(folder: str) -> Telemetry:
    """Read the telemetry in a cycle's folder; never raises OSError."""
    found: dict[str, Figures] = {}
    damaged = 0
    for reading in readings(folder):
        if reading.values is None:
            damaged += 1
            continue
        for name, value in reading.values.items():
            if name in found or len(found) < MOST_SERIES:
                found[name] = add(found.get(name), value)
    return Telemetry(found, damaged)


def readings(folder: str, budget: int = MOST_BYTES) -> Iterator[Reading]:
    """Give every line with numbers, and every damaged one, of a cycle's telemetry; a file that can't be read has none.

    Args:
        budget: bytes to read at most, of a longer file its end.
    """
    logs = os.path.join(folder, "logs")
    try:
        names = sorted(name for name in os.listdir(logs) if name.endswith(".jsonl"))
    except OSError:
        return
    for name in names[:MOST_FILES]:
        with suppress(OSError):
            budget -= yield from _readings(os.path.join(logs, name), budget)


def note(db: Database, cycle: CycleNumber, telemetry: Telemetry) -> None:
    """Keep a cycle's telemetry, for lists and means. Inside the transaction that ends it."""
    db.run("products.measured", cycle=cycle, telemetry=to_text(telemetry))


def to_text(telemetry: Telemetry) -> str:
    """Write telemetry as the store keeps it."""
    return json.dumps({"series": telemetry.series, "damaged": telemetry.damaged})


def from_text_or_none(text: str | None) -> Telemetry | None:
    """Read what `to_text` wrote; None for what is not known."""
    if text is None:
        return None
    found = json.loads(text)
    return Telemetry({name: Figures(*figures) for name, figures in found["series"].items()}, found["damaged"])


def lasts(text: str | None) -> tuple[dict[str, float], int]:
    """Read each series' last value, and the number of damaged lines, from what `to_text` wrote: for many cycles at once."""
    if text is None:
        return {}, 0
    found = json.loads(text)
    return {name: figures[0] for name, figures in found["series"].items()}, found["damaged"]


def parse(line: bytes) -> tuple[datetime | None, dict[str, float]] | None:
    """Read one line: when it says it was written, and its numbers; None when it is damaged."""
    try:
        read = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, dict):
        return None, {}
    at, clock = _clock(read)
    return at, dict(_numbers({key: value for key, value in read.items() if key != clock}, "", 1))


def add(before: Figures | None, value: float) -> Figures:
    """Take a value into a series; None: it is the first."""
    if before is None:
        return Figures(value, 1, value, value, value)
    total = before.total + value
    bounded = max(-sys.float_info.max, min(total, sys.float_info.max))
    return Figures(value, before.number + 1, min(before.low, value), max(before.high, value), bounded)


def _readings(path: str, budget: int) -> Generator[Reading, None, int]:
    """Give the lines of one file; returns how many bytes were read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return 0
        start = max(0, os.fstat(descriptor).st_size - budget)
        file.seek(start)
        for number, line in enumerate(_lines(file, budget, torn=start > 0), 1):
            parsed = None if line is None else parse(line)
            if parsed is None:
                yield Reading(number, None, None)
            elif parsed[1]:
                yield Reading(number, *parsed)
        return max(0, file.tell() - start)


def _lines(file: IO[bytes], budget: int, *, torn: bool) -> Iterator[bytes | None]:
    """Give the lines that are not empty, None for one that is too long. `torn`: the first one began before."""
    while budget > 0 and (line := file.readline(LONGEST_LINE + 1)):
        budget -= len(line)  # so a file that grows meanwhile comes to an end too
        whole = line.endswith(b"\n")
        if torn:
            torn = not whole
        elif not whole and len(line) > LONGEST_LINE:
            torn = True
            yield None
        elif line.strip():
            yield line


def _numbers(read: Mapping[str, Any], above: str, depth: int) -> Iterator[tuple[str, float]]:
    for key, value in read.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            if depth < _DEEPEST:
                yield from _numbers(value, f"{name}.", depth + 1)
        elif isinstance(value, int | float) and not isinstance(value, bool) and 0 < len(name) <= _LONGEST_NAME:
            number = _finite(value)
            if number is not None:
                yield _printable(name), number


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of a float
        return None
    return number if math.isfinite(number) else None


def _printable(name: str) -> str:
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")


def _clock(read: Mapping[str, Any]) -> tuple[datetime | None, str | None]:
    """Return the line's own time (aware UTC), and the key that says it."""
    for key in _CLOCKS:
        at = _instant(read.get(key))
        if at is not None:
            return at, key
    return None, None


def _instant(value: object) -> datetime | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = _finite(value) or 0.0
        seconds = seconds / 1000 if seconds > _LATEST else seconds
        return datetime.fromtimestamp(seconds, UTC) if _EARLIEST <= seconds <= _LATEST else None
    if isinstance(value, str):
        with suppress(ValueError, OverflowError):
            found = datetime.fromisoformat(value)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    return None
