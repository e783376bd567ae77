"""Reads `loop_health`, the document of every view, from the store; `tree.py` reads it from bare folders.

Looks and changes nothing. Each question is answered by an index or by a bounded number of rows, so that a store of many
years costs what a new one does.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, cast

from orchestration import __version__
from orchestration.cycles import artifacts, ledger, telemetry
from orchestration.cycles.backoff import Backoff
from orchestration.cycles.cycle import Cause, CycleNumber, CycleState, JobName
from orchestration.loop import ledger as loop
from orchestration.phase.window import Interval, Window
from orchestration.promotions import ledger as promotions
from orchestration.promotions.scan import ack_name
from orchestration.pulse import health, metrics, parameters, signs, tails, threads, wakes
from orchestration.pulse.heartbeat import Now, Seen, beat_of, heartbeat, span
from orchestration.pulse.lines import cycle_line, phase_line, seconds_of, tick_line
from orchestration.pulse.loop_health import (
    CycleLine,
    Failure,
    Heartbeat,
    LoopHealth,
    Parked,
    Queue,
    Summary,
    Waiting,
    WindowLine,
)
from orchestration.pulse.summary import NEWEST, Ended, summarise, totals_of
from orchestration.pulse.tree import survey_tree as survey_tree
from orchestration.store.instants import from_text, from_text_or_none, to_text
from orchestration.store.port import Database, Row
from orchestration.tick import calendar, history

if TYPE_CHECKING:
    from orchestration.settings import Settings

PHASE_DATES = 30
_UNACKED_LOOKED_AT = 200
_ENDED = re.compile(r'^job="([^"]*)",result="([^"]*)"$')


def survey(
    settings: Settings, db: Database, now: datetime, *, boot_id: str, cycles: int = 50, failures: int = 5
) -> LoopHealth:
    """Read how the loop stands at an instant (aware UTC), in one consistent look. Not inside a transaction.

    Args:
        boot_id: of the host now. cycles, failures: at most so many of the newest.
    """
    with db.transaction(looking=True):
        return _survey(settings, db, now, boot_id=boot_id, cycles=cycles, failures=failures)


def _survey(settings: Settings, db: Database, now: datetime, *, boot_id: str, cycles: int, failures: int) -> LoopHealth:
    values = metrics.read(db)
    scope = signs.scope(settings, db, values, everyone=True)
    seen = signs.read(settings, db, values, now, scope)
    window = _window(settings)
    newest = [cycle_line(row) for row in db.rows("survey.cycles", limit=cycles)]
    active = tuple(cycle_line(row) for row in db.rows("survey.active"))
    open_now = window.containing(now)
    return LoopHealth(
        generated_at=now,
        host=os.uname().nodename,
        version=__version__,
        state_dir=settings.state_dir,
        judgement=health.judge(seen, signs.since(db)),
        mode=seen.mode,
        last_tick=next((tick_line(tick) for tick in history.recent(db, 1)), None),
        active=active,
        time_zone=settings.phase.time_zone,
        open_window=None if open_now is None else _window_line(open_now),
        next_window=_window_line(window.next_after(now)),
        heartbeat=_heartbeat(db, Now(now, boot_id, seen.mode)),
        cycles=tuple(newest),
        failures=_failures(settings, db, failures),
        summary=_summary(db, values if scope is None else signs.cycles_ended(db)),
        phase_dates=tuple(phase_line(day) for day in calendar.recent(db, PHASE_DATES)),
        queues=_queues(settings, db, values, active),
        parked=tuple(
            Parked(stem=one.stem, failures=one.failures, reason=one.reason, since=one.changed_at)
            for one in promotions.parked(db)
            if _waits(settings, one.stem)
        ),
        backoffs=_backoffs(settings, db, open_now, now),
        escrow=parameters.held(db),
        baseline=parameters.in_force(settings, db),
        advice=parameters.advice(db),
        threads=threads.read(db),
        wakes=wakes.read(db),
        scope=scope,
        damaged_lines=sum(line.damaged_lines for line in newest),
    )


def _window(settings: Settings) -> Window:
    return Window(settings.phase.window_opens, settings.phase.window_closes, settings.phase.time_zone)


def _window_line(interval: Interval) -> WindowLine:
    return WindowLine(**interval._asdict())


def _heartbeat(db: Database, now: Now) -> Heartbeat:
    newest = next((from_text(cast("str", row["started_at"])) for row in db.rows("survey.newest_start")), None)
    start, minutes = span(now.at, newest)
    rows = db.rows("survey.beats", since=to_text(start), until=to_text(now.at))
    before = history.last_before(db, start)
    return heartbeat(
        [_seen(row) for row in rows],
        before=None
        if before is None
        else Seen(before.started_at, before.started_at, beat_of(before.decision, before.exit), before.boot_id),
        start=start,
        minutes=minutes,
        now=now,
    )


def _seen(row: Row) -> Seen:
    findings = [] if row["findings"] is None else json.loads(cast("str", row["findings"]))
    return Seen(
        first=from_text(cast("str", row["first"])),
        last=from_text(cast("str", row["last"])),
        beat=beat_of(cast("str", row["decision"]), cast("int", row["exit_code"])),
        boot_id=cast("str", row["boot_id"]),
        evidence=findings[-1][2] if findings else "",
    )


def _failures(settings: Settings, db: Database, limit: int) -> tuple[Failure, ...]:
    lines = [cycle_line(row) for row in db.rows("survey.failed", limit=limit)]
    return tuple(Failure(line=line, tail=_tail(settings.cycles_dir, line)) for line in lines)


def _tail(cycles_dir: str, line: CycleLine) -> str:
    found = tails.tail(artifacts.output_path(artifacts.cycle_dir(cycles_dir, CycleNumber(line.cycle))))
    return "" if found is None else found.text


def _summary(db: Database, values: metrics.Values) -> Summary:
    ended = [_ended(row) for row in db.rows("survey.ended", limit=NEWEST)]
    counted = (
        (match[1], match[2], int(value))
        for (name, labels), value in values.items()
        if name == "kloros_cycles_total" and (match := _ENDED.match(labels))
    )
    return summarise(ended, totals_of(counted))


def _ended(row: Row) -> Ended:
    state = CycleState(cast("str", row["state"]))
    started, ended = (from_text_or_none(cast("str | None", row[name])) for name in ("started_at", "ended_at"))
    series, _ = telemetry.lasts(cast("str | None", row["telemetry"]))
    return Ended(state, seconds_of(state, started, ended), series)


def _queues(settings: Settings, db: Database, values: metrics.Values, active: Sequence[CycleLine]) -> tuple[Queue, ...]:
    (row,) = db.rows("survey.queues")
    lane = (line for line in active if line.state is CycleState.QUEUED and line.job != JobName.WAKE)
    queued = [line.queued_at for line in lane if line.queued_at is not None]
    waiting = metrics.queues(values)["promotions_unacked"]
    return (
        Queue(name="promotions", count=waiting, oldest=_oldest_unacked(settings, db) if waiting else None),
        _queue(row, "intents"),
        Queue(name="cycles", count=len(queued), oldest=min(queued, default=None)),
        _queue(row, "federation"),
        _queue(row, "escrow"),
    )


def _queue(row: Row, name: str) -> Queue:
    since = from_text_or_none(cast("str | None", row[f"{name}_since"]))
    return Queue(name=name, count=cast("int", row[name]), oldest=since)


def _oldest_unacked(settings: Settings, db: Database) -> datetime | None:
    """Return when the promotion was first seen that waits longest: the store may remember some that others have answered."""
    for row in db.rows("survey.unacked", limit=_UNACKED_LOOKED_AT):
        if _waits(settings, cast("str", row["stem"])):
            return from_text(cast("str", row["first_seen_at"]))
    return None


def _waits(settings: Settings, stem: str) -> bool:
    """Tell whether a promotion is there and has no ack of its name."""
    promotion, ack = os.path.join(settings.promotions_dir, f"{stem}.json"), os.path.join(settings.acks_dir, ack_name(stem))
    return os.path.lexists(promotion) and not os.path.lexists(ack)


def _backoffs(settings: Settings, db: Database, open_now: Interval | None, now: datetime) -> tuple[Waiting, ...]:
    phase = ledger.streak(() if open_now is None else ledger.of_date(db, open_now.date))
    dream = ledger.failures_in_a_row(db, JobName.DREAM, Cause.PROMOTIONS)
    past = loop.past(db)
    found: Sequence[tuple[JobName, int, datetime | None]] = (
        (JobName.PHASE, phase.in_a_row, Backoff(settings.phase.backoff).until(phase, now)),
        (JobName.DREAM, dream.in_a_row, Backoff(settings.dream.backoff).until(dream, now)),
        (JobName.LOOP, past.failures_in_a_row, past.wait_until),
    )
    return tuple(
        Waiting(job=job, failures=failures, until=until)
        for job, failures, until in found
        if until is not None and until > now
    )
