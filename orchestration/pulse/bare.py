"""A cycle as a folder alone tells it: its `manifest.json`, whoever wrote it. Pure; believes nothing, refuses nothing.

What the manifest lacks, or has in another form, is not known. docs/reference/manifest.md has the form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Final, TypeVar

from orchestration.cycles.cycle import ACTIVE, Cause, CycleState, JobName
from orchestration.pulse.loop_health import UNKNOWN, CycleLine

_LONGEST: Final = 200
_State = TypeVar("_State", CycleState, JobName, Cause)


def line_of(number: int, manifest: bytes | None, series: Mapping[str, float], damaged: int) -> CycleLine:
    """Return the cycle of this number, by the bytes of its manifest; None: there is no file that could be read."""
    read, fault = _parse(manifest)
    state = _one_of(CycleState, read.get("state"))
    started, ended = _instant(read.get("started_at")), _instant(read.get("ended_at"))
    over = state is not None and state not in ACTIVE and state is not CycleState.LOST
    result, origin = _object(read.get("result")), _object(read.get("origin"))
    return CycleLine(
        cycle=number,
        job=_one_of(JobName, read.get("job")) or _text(read.get("job")) or UNKNOWN,
        state=state or UNKNOWN,
        cause=_one_of(Cause, origin.get("cause")),
        phase_date=_date(read.get("phase_date")),
        queued_at=_instant(read.get("queued_at")),
        started_at=started,
        recorded_at=ended,
        seconds=max(0.0, (ended - started).total_seconds()) if over and started and ended else None,
        timeout_seconds=_number(read.get("timeout_seconds")),
        reason=fault or _text(result.get("reason")) or ("" if state else "its manifest names no state that we know"),
        series=series,
        damaged_lines=damaged,
    )


def _parse(manifest: bytes | None) -> tuple[Mapping[str, object], str]:
    if manifest is None:
        return {}, "it has no manifest.json that can be read"
    try:
        read = json.loads(manifest)
    except (ValueError, RecursionError):
        return {}, "its manifest.json is damaged: no JSON"
    return (read, "") if isinstance(read, dict) else ({}, "its manifest.json is damaged: no JSON object")


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _one_of(kind: type[_State], value: object) -> _State | None:
    return next((one for one in kind if one == value), None)


def _text(value: object) -> str:
    """Return a short printable text, empty for anything else."""
    if not isinstance(value, str):
        return ""
    short = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in short)


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    with suppress(OverflowError):
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def _instant(value: object) -> datetime | None:
    if isinstance(value, str):
        with suppress(ValueError, OverflowError):
            read = datetime.fromisoformat(value)
            return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def _date(value: object) -> date | None:
    if isinstance(value, str):
        with suppress(ValueError):
            return date.fromisoformat(value)
    return None
