"""The older ledger of PHASEs, `processed/epochs.jsonl`: one line for each that was done, and the local date it was for.

Pure. A line is `{"epoch_id", "date", "ts"}`: the date is that of New York when the PHASE ended, `ts` seconds since 1970
(HomoYouDidnt/kloros, src/kloros/orchestration/coordinator.py at 41ff426, `_mark_phase_done`). Lines that lack one or the
other are read by what they have, down to the instant in the epoch's name.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from orchestration.errors import Malformed
from orchestration.phase.window import Window

_NAMED = re.compile(r"(?<!\d)(\d{8})[_T-]?(\d{6})(?!\d)")
_MILLISECONDS_FROM = 1e11  # as seconds that is the year 5138
_EARLIEST = date(2000, 1, 1)
_ILL = frozenset({"failed", "failure", "error", "timeout", "timed_out", "skipped", "cancelled"})


class Epoch(NamedTuple):
    """One PHASE of the older orchestrator."""

    epoch_id: str
    day: date  # the local date that it answers here


def parse_epoch(line: bytes, window: Window, now: datetime) -> Epoch:
    """Read one line. `now` is aware.

    A PHASE that ended inside a window of ours answers that window's date; any other the date that the line says.

    Raises:
        Malformed: it is no such line, says that the PHASE did not succeed, or is of a day to come.
    """
    entry = _entry(line)
    ended = _ended(entry)
    inside = None if ended is None else window.containing(ended)
    zone = ZoneInfo(window.time_zone)
    said = _date(entry)
    day = inside.date if inside is not None else said or (ended.astimezone(zone).date() if ended is not None else None)
    if day is None:
        raise Malformed("says neither date nor time: no date, no ts, and no instant in epoch_id")
    if not _EARLIEST <= day <= now.astimezone(zone).date():
        raise Malformed(f"is of {day}, which is {'to come' if day > _EARLIEST else 'before there was any'}")
    return Epoch(str(entry.get("epoch_id") or "unnamed"), day)


def _entry(line: bytes) -> dict[str, object]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Malformed("is no JSON") from error
    if not isinstance(entry, dict):
        raise Malformed("is no JSON object")
    outcome = next((entry[key] for key in ("result", "status") if isinstance(entry.get(key), str)), "")
    if entry.get("success") is False or entry.get("exit_code") not in (None, 0) or str(outcome).lower() in _ILL:
        raise Malformed("says that the PHASE did not succeed")
    return entry


def _date(entry: dict[str, object]) -> date | None:
    said = entry.get("date")
    if said is None:
        return None
    try:
        return date.fromisoformat(str(said))
    except ValueError as error:
        raise Malformed(f"date {str(said)[:40]!a} is no date") from error


def _ended(entry: dict[str, object]) -> datetime | None:
    ts = entry.get("ts")
    try:
        if isinstance(ts, str):
            read = datetime.fromisoformat(ts)
            return read.astimezone(UTC) if read.tzinfo else None
        if isinstance(ts, int | float) and not isinstance(ts, bool):
            return datetime.fromtimestamp(ts / 1000 if abs(ts) >= _MILLISECONDS_FROM else ts, UTC)
        named = _NAMED.search(str(entry.get("epoch_id")))
        return datetime.strptime("".join(named.groups()), "%Y%m%d%H%M%S").replace(tzinfo=UTC) if named else None
    except (ValueError, OverflowError, OSError) as error:
        raise Malformed(f"ts {str(ts)[:40]!a} is no instant") from error
