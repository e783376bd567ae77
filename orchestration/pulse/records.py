"""Reads the pages beside the first one: lists and single records, from the store and the folders it names.

Looks and changes nothing. What a command left is read with bounds: it may be anything.
"""

from __future__ import annotations

import os
import re
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from orchestration.cycles import artifacts, bundle, ledger, manifest, products, telemetry
from orchestration.cycles.cycle import Cycle, CycleNumber, CycleState, folder_name
from orchestration.errors import KlorosError, Usage
from orchestration.phase.window import Window
from orchestration.promotions import ledger as promotions
from orchestration.promotions.scan import scan_unacked, stem_of
from orchestration.pulse import metrics, tails
from orchestration.pulse.asked import Asked, Reader
from orchestration.pulse.lines import cycle_line, phase_line, tick_line
from orchestration.pulse.loop_health import WindowLine
from orchestration.pulse.series import Thinned
from orchestration.pulse.views import (
    LONGEST_TEXT,
    MOST_LINES,
    MOST_ROWS,
    Answer,
    Artifact,
    CalendarDay,
    CalendarView,
    CycleDetail,
    CycleOrder,
    CyclePage,
    CycleQuery,
    IntentRow,
    IntentsView,
    Log,
    PromotionRow,
    PromotionsView,
    Series,
    TickDetail,
)
from orchestration.store.instants import from_text, from_text_or_none
from orchestration.store.port import Database, Row
from orchestration.tick import calendar, history

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.cycles.products import Products
    from orchestration.settings import Settings
    from orchestration.tick.history import Tick

_MOST_DAYS: Final = 400
_MOST_LOGS: Final = 20
_LOG_BYTES: Final = 65_536
_LOG_LINES: Final = 200
_LONGEST_MANIFEST: Final = 262_144
_CHART_BYTES: Final = 8 << 20  # of telemetry that one page reads
_DAY: Final = timedelta(days=1)
_TIMED: Final = (CycleOrder.LONGEST, CycleOrder.SHORTEST)
_CURSOR: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?:)?([0-9]{1,18})")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_GREATEST: Final = 2**62


def cycle_page(db: Database, query: CycleQuery) -> CyclePage:
    """Return one page of the cycles asked for.

    Raises:
        Usage: a limit or text out of range, or a cursor that no page gave.
    """
    if not 1 <= query.limit <= MOST_LINES:
        raise Usage(f"limit {query.limit} is out of range", hint=f"give 1 to {MOST_LINES}")
    if len(query.text) > LONGEST_TEXT:
        raise Usage(f"the text to search for has {len(query.text)} characters", hint=f"give at most {LONGEST_TEXT}")
    asked = {"job": query.job or "", "state": query.state or ""}
    rows = db.rows(
        f"records.{query.order}", **asked, **_place(query), text=query.text.strip().lower(), limit=query.limit + 1
    )
    shown = rows[: query.limit]
    counting = "records.count_timed" if query.order in _TIMED else "records.count"
    return CyclePage(
        query=query,
        lines=tuple(cycle_line(row) for row in shown),
        next_cursor=_cursor(query, shown[-1]) if len(rows) > query.limit else None,
        total=None if query.text.strip() else cast("int", db.rows(counting, **asked)[0]["cycles"]),
    )


def _place(query: CycleQuery) -> dict[str, Any]:
    """Return where the page begins, as the query's parameters."""
    rising = query.order in (CycleOrder.OLDEST, CycleOrder.SHORTEST)
    if not query.cursor:
        after, seconds = (-1, -1.0) if rising else (_GREATEST, float(_GREATEST))
    else:
        match = _CURSOR.fullmatch(query.cursor)
        if match is None or (match[1] is not None) is not (query.order in _TIMED):
            raise Usage(f"{query.cursor[:80]!r} is no cursor of this list", hint="begin without one")
        after, seconds = int(match[2]), float((match[1] or "0:")[:-1])
    return {"after": after, "seconds": seconds} if query.order in _TIMED else {"after": after}


def _cursor(query: CycleQuery, last: Row) -> str:
    number = str(last["cycle"])
    return f"{cast('float', last['seconds']):.3f}:{number}" if query.order in _TIMED else number


def cycle_detail(settings: Settings, db: Database, number: int) -> CycleDetail | None:
    """Return one cycle with what it left, or None when the number was never given."""
    if not 0 < number < _GREATEST:
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
    reader = Reader(_intents_dir(settings))
    return next((_said(reader, row) for row in rows if row["cycle"] == cycle), Asked())


def _said(reader: Reader, row: Row) -> Asked:
    return reader.of(cast("str", row["name"]), cast("str", row["content_sha"]), cast("str", row["status"]))


def _intents_dir(settings: Settings) -> str:
    return os.path.join(settings.state_dir, "intents")


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
            path=_shown(file.path),
            size=file.size,
            sha256=file.sha256,
            media_type=file.media_type,
            present=os.path.lexists(os.path.join(folder, file.path)),
        )
        for file in left.left.files[:MOST_ROWS]
    )
    return listed, left.left.omitted + len(left.left.files) - len(listed)


def _shown(path: str) -> str:
    """Write a path with what is no UTF-8 in it as `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


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
        Log(path=_shown(path), size=end.size, tail=end.text, truncated=end.truncated)
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


def tick_detail(db: Database, name: str) -> TickDetail | None:
    """Return one tick by its id or its number as text, or None."""
    if len(name) > LONGEST_TEXT or not ("-" in name or _NUMBER.fullmatch(name)):
        return None
    with db.transaction(looking=True):
        tick = history.get(db, name)
        if tick is None:
            return None
        (near,) = db.rows("records.neighbours", tick=tick.tick)
        rows = db.rows("records.line", cycle=tick.cycle)
    return TickDetail(
        tick=tick_line(tick),
        ended_at=tick.ended_at,
        boot_id=tick.boot_id,
        blocker=tick.blocker or "",
        counted=_counted(tick),
        cycle=cycle_line(rows[0]) if rows else None,
        previous=cast("int | None", near["previous"]),
        following=cast("int | None", near["following"]),
    )


def _counted(tick: Tick) -> tuple[int, ...]:
    return tuple(position for position, (_, reason, _) in enumerate(tick.findings) if reason in tick.reasons)


def promotions_view(settings: Settings, db: Database, *, answered: int = 100) -> PromotionsView:
    """Return the promotions without an answer, and so many that have one (at most MOST_ROWS)."""
    unreadable, names = "", list[str]()
    try:
        scan = scan_unacked(db, promotions_dir=settings.promotions_dir, acks_dir=settings.acks_dir, remember=False)
        names = [*scan.parked, *scan.waiting]
    except KlorosError as fault:
        unreadable = str(fault)
    known = promotions.known(db, [stem_of(name) for name in names])
    waiting = [_promotion(known.get(stem_of(name)), stem_of(name)) for name in names]
    waiting.sort(key=lambda one: (one.first_seen_at is None, one.first_seen_at, one.stem))
    limit = max(0, min(answered, MOST_ROWS))
    return PromotionsView(
        folder=settings.promotions_dir,
        waiting=tuple(waiting[:MOST_ROWS]),
        omitted=max(0, len(waiting) - MOST_ROWS),
        answered=tuple(_promotion(one, one.stem) for one in promotions.answered(db, limit=limit)),
        totals={str(state): number for state, number in promotions.counts(db).items()},
        unreadable=unreadable,
    )


def _promotion(known: promotions.Remembered | None, stem: str) -> PromotionRow:
    if known is not None:
        return PromotionRow(**{**known._asdict(), "state": str(known.state)})
    return PromotionRow(
        stem=_shown(stem),
        promotion_id="",
        state="new",
        fitness=None,
        failures=0,
        reason="no tick has taken it in yet",
        first_seen_at=None,
        changed_at=None,
        cycle=None,
    )


def intents_view(settings: Settings, db: Database, *, decided: int = 100) -> IntentsView:
    """Return the intents that wait, and so many decided ones (at most MOST_ROWS)."""
    limit = max(0, min(decided, MOST_ROWS))
    values = metrics.read(db)
    totals = {labels[len('status="') : -1]: int(value) for (name, labels), value in values.items() if name == _INTENTS}
    folder = _intents_dir(settings)
    reader = Reader(folder)
    return IntentsView(
        folder=folder,
        limit=settings.intents.max_pending,
        waiting=tuple(_waiting_intent(row, reader) for row in db.rows("intents.pending")[:MOST_ROWS]),
        decided=tuple(_decided_intent(row, reader) for row in db.rows("operator.intents_decided", limit=limit)),
        totals=dict(sorted(totals.items())),
    )


_INTENTS: Final = "kloros_intents_total"


def _waiting_intent(row: Row, reader: Reader) -> IntentRow:
    asked = reader.of(cast("str", row["name"]), cast("str", row["content_sha"]), "pending")
    return IntentRow(
        name=cast("str", row["name"]),
        intent_type=cast("str", row["intent_type"]),
        priority=cast("int", row["priority"]),
        status="pending",
        reason="",
        intent_reason=asked.reason,
        emitted_by=asked.emitted_by,
        seen_at=from_text(cast("str", row["seen_at"])),
        decided_at=None,
        cycle=None,
    )


def _decided_intent(row: Row, reader: Reader) -> IntentRow:
    asked = _said(reader, row)
    return IntentRow(
        name=cast("str", row["name"]),
        intent_type=cast("str", row["intent_type"]),
        priority=cast("int", row["priority"]),
        status=cast("str", row["status"]),
        reason=cast("str", row["reason"]),
        intent_reason=asked.reason,
        emitted_by=asked.emitted_by,
        seen_at=from_text(cast("str", row["seen_at"])),
        decided_at=from_text(cast("str", row["decided_at"])),
        cycle=cast("int | None", row["cycle"]),
    )


def calendar_view(settings: Settings, db: Database, now: datetime, *, days: int = 30) -> CalendarView:
    """Return the local dates from the next window's back, so many and the next (1 to 400), newest first."""
    phase = settings.phase
    window = Window(phase.window_opens, phase.window_closes, phase.time_zone)
    newest = window.next_after(now).date
    dates = [newest - back * _DAY for back in range(max(1, min(days, _MOST_DAYS)) + 1)]
    since = dates[-1].isoformat()
    with db.transaction(looking=True):
        outcomes = {day.date: day for day in calendar.since(db, dates[-1])}
        answering: dict[date, list[int]] = {}
        for row in db.rows("records.cycles_of_dates", since=since):
            day = date.fromisoformat(cast("str", row["phase_date"]))
            answering.setdefault(day, []).append(cast("int", row["cycle"]))
        counted = {cast("str", row["result"]): cast("int", row["dates"]) for row in db.rows("records.dates")}
    return CalendarView(
        time_zone=phase.time_zone,
        days=tuple(_day(window, one, outcomes.get(one), answering.get(one, ())) for one in dates),
        totals={str(result): counted.get(result, 0) for result in calendar.DateResult},
    )


def _day(window: Window, day: date, outcome: calendar.PhaseDate | None, cycles: list[int] | tuple[()]) -> CalendarDay:
    """Write one date; of one that is accounted for the window that it had, whatever the settings say now."""
    interval = window.on(day)
    opens, closes = (interval.opens, interval.closes) if outcome is None else (outcome.opens, outcome.closes)
    return CalendarDay(
        window=WindowLine(date=day, opens=opens, closes=closes),
        outcome=None if outcome is None else phase_line(outcome),
        cycles=tuple(cycles),
    )
