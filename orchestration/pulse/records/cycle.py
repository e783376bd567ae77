"""Reads one cycle with what it left. What a command left is read with bounds: it may be anything."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING, Final, cast

from orchestration.cycles import artifacts, bundle, ledger, manifest, products, telemetry
from orchestration.cycles.cycle import Cycle, CycleNumber, CycleState, folder_name
from orchestration.promotions import ledger as promotions
from orchestration.pulse import tails
from orchestration.pulse.asked import Asked, Reader
from orchestration.pulse.lines import cycle_line, tick_line
from orchestration.pulse.records.intents import intents_dir, said
from orchestration.pulse.records.listing import GREATEST
from orchestration.pulse.records.names import shown
from orchestration.pulse.series import Thinned
from orchestration.pulse.views import MOST_ROWS, Answer, Artifact, CycleDetail, Log, Series
from orchestration.store.instants import from_text_or_none
from orchestration.store.port import Database, Row
from orchestration.tick import history

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.cycles.products import Products
    from orchestration.settings import Settings

_MOST_LOGS: Final = 20
_LOG_BYTES: Final = 65_536
_LOG_LINES: Final = 200
_LONGEST_MANIFEST: Final = 262_144
_CHART_BYTES: Final = 8 << 20  # of telemetry that one page reads


def cycle_detail(settings: Settings, db: Database, number: int) -> CycleDetail | None:
    """Return one cycle with what it left, or None when the number was never given."""
    if not 0 < number < GREATEST:
        return None
    with db.transaction(looking=True):
        cycle = ledger.get(db, CycleNumber(number))
        if cycle is None:
            return None
        (row,) = db.rows("records.line", cycle=number)
        (beside,) = db.rows("records.beside", cycle=number)
        left = products.get(db, cycle.cycle)
        known = promotions.known(db, cycle.origin.promotions)
        asked_by = history.get(db, cycle.origin.tick_id) if cycle.origin.tick_id else None
        taken = db.rows("operator.intents_named", name=cycle.origin.intent) if cycle.origin.intent else []
    asked = _asked(settings, taken, number)
    folder = artifacts.cycle_dir(settings.cycles_dir, cycle.cycle)
    result = cycle.result
    series, damaged = _telemetry(folder, telemetry.from_text_or_none(cast("str | None", row["telemetry"])))
    listed, omitted = _artifacts(folder, left)
    return CycleDetail(
        line=cycle_line(row),
        preceding=cast("int | None", beside["preceding"]),
        following=cast("int | None", beside["following"]),
        folder=folder,
        pruned_at=from_text_or_none(cast("str | None", row["pruned_at"])),
        command=cycle.command,
        working_dir=cycle.working_dir or folder,
        environment=left.environment,
        revision=left.revision,
        exit_code=None if result is None else result.exit_code,
        signal=None if result is None else result.signal,
        wall_seconds=None if result is None else result.wall_seconds,
        cpu_seconds=None if result is None else result.cpu_seconds,
        peak_bytes=None if result is None else result.peak_bytes,
        output_truncated=result is not None and result.output_truncated,
        settled_at=cycle.settled_at,
        cancel_asked_at=cycle.cancel_asked_at,
        deadline=_deadline(cycle),
        topic=cycle.origin.topic,
        intent=cycle.origin.intent,
        intent_reason=asked.reason,
        emitted_by=asked.emitted_by,
        given=cycle.origin.promotions,
        answers=tuple(_answer(stem, known.get(stem), number) for stem in cycle.origin.promotions),
        asked_by=None if asked_by is None else tick_line(asked_by),
        artifacts=listed,
        omitted=omitted,
        manifest=_manifest(cycle, left),
        bundle=bundle.path_of(folder_name(cycle.cycle), settings.bundles_dir) or "",
        logs=_logs(folder),
        telemetry=series,
        damaged_lines=damaged,
    )


def _asked(settings: Settings, rows: Sequence[Row], cycle: int) -> Asked:
    """Return what the intent says that asked for this cycle; others may have had its name before and since."""
    reader = Reader(intents_dir(settings))
    return next((said(reader, row) for row in rows if row["cycle"] == cycle), Asked())


def _deadline(cycle: Cycle) -> datetime | None:
    running = cycle.state is CycleState.RUNNING and cycle.started_at is not None
    return cycle.started_at + cycle.timeout if running and cycle.started_at else None


def _answer(stem: str, known: promotions.Remembered | None, cycle: int) -> Answer:
    """Tell what this cycle made of a promotion; another one may have answered it since."""
    if known is None or known.cycle != cycle:
        return Answer(stem=stem, state="", fitness=None, reason="")
    return Answer(stem=stem, state=known.state, fitness=known.fitness, reason=known.reason)


def _artifacts(folder: str, left: Products) -> tuple[tuple[Artifact, ...] | None, int]:
    if left.left is None:
        return None, 0
    listed = tuple(
        Artifact(
            path=shown(file.path),
            size=file.size,
            sha256=file.sha256,
            media_type=file.media_type,
            present=os.path.lexists(os.path.join(folder, file.path)),
        )
        for file in left.left.files[:MOST_ROWS]
    )
    return listed, left.left.omitted + len(left.left.files) - len(listed)


def _manifest(cycle: Cycle, left: Products) -> str:
    text = manifest.to_bytes(cycle, left).decode()
    if len(text) <= _LONGEST_MANIFEST:
        return text
    return f"{text[:_LONGEST_MANIFEST]}\n… cut here: it has {len(text)} characters\n"


def _logs(folder: str) -> tuple[Log, ...]:
    """Read the end of each log, the command's output first."""
    try:
        names = sorted(os.listdir(os.path.join(folder, "logs")))
    except OSError:
        return ()
    paths = [f"logs/{name}" for name in sorted(names, key=lambda name: name != "output.log")]
    found = ((path, os.path.join(folder, path)) for path in paths if not manifest.is_telemetry(path))
    tailed = ((path, tails.tail(full, lines=_LOG_LINES, most_bytes=_LOG_BYTES)) for path, full in list(found)[:_MOST_LOGS])
    return tuple(
        Log(path=shown(path), size=end.size, tail=end.text, truncated=end.truncated)
        for path, end in tailed
        if end is not None
    )


def _telemetry(folder: str, kept: telemetry.Telemetry | None) -> tuple[tuple[Series, ...], int]:
    """Read points for a chart from the files that are there; figures as they were when the cycle ended, if it has."""
    found: dict[str, Thinned] = {}
    damaged = 0
    for reading in telemetry.readings(folder, _CHART_BYTES):
        damaged += reading.values is None
        for name, value in (reading.values or {}).items():
            if name in found or len(found) < telemetry.MOST_SERIES:
                found.setdefault(name, Thinned()).add(reading.line, reading.at, value)
    figures = telemetry.Telemetry({name: one.figures for name, one in found.items()}, damaged) if kept is None else kept
    return tuple(
        Series(
            name=name,
            last=one.last,
            count=one.number,
            low=one.low,
            high=one.high,
            mean=one.mean,
            points=found[name].points if name in found else (),
        )
        for name, one in sorted(figures.series.items())
    ), figures.damaged
