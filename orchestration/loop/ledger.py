"""The iterations in the store, which is the truth about them; the history file is its copy."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple, cast

from orchestration.cycles.cycle import CycleNumber
from orchestration.loop.iteration import STALE_AFTER, Plan, Prerequisite, Row, without_archive
from orchestration.loop.status import FAILURES, Status
from orchestration.store.counters import count, gauges
from orchestration.store.instants import from_text, from_text_or_none, to_text
from orchestration.store.port import Database

_LOOKED_AT = 50  # newest iterations that are asked for archives


class Open(NamedTuple):
    """An iteration that has begun and not ended."""

    iteration: int
    token: str
    started_at: datetime
    plan: Plan
    cycle: CycleNumber | None


class Past(NamedTuple):
    """What the iterations before mean for the next one."""

    failures_in_a_row: int  # since the last one that ended well; interrupted ones count neither way
    without_archive: int
    last_ended_at: datetime | None
    wait_until: datetime | None  # after a failure

    @property
    def stale(self) -> bool:
        """Whether the archives are older than the last across enough iterations for the alert."""
        return self.without_archive >= STALE_AFTER


def begin(db: Database, *, token: str, now: datetime, plan: Plan, history_path: str) -> Open:
    """Note an iteration that begins, under the next number."""
    db.run("iterations.begin", token=token, started_at=to_text(now), plan=_plan_text(plan), history_path=history_path)
    number = cast("int", db.rows("iterations.number_of", token=token)[0]["iteration"])
    return Open(number, token, now, plan, None)


def plan(db: Database, iteration: Open) -> None:
    """Note an iteration's plan and cycle as they are now."""
    db.run("iterations.plan", iteration=iteration.iteration, plan=_plan_text(iteration.plan), cycle=iteration.cycle)


def end(db: Database, row: Row, *, archive_new: bool | None, wait_until: datetime | None = None) -> bool:
    """Note how an iteration ended, and count it; False when that was noted before. Inside a transaction.

    `archive_new` None: its command was not run. `wait_until`: what a start soon after a failure waits for, also where the
    row plans no run.
    """
    until = wait_until or row.next_run_at
    changed = db.run(
        "iterations.end",
        iteration=row.iteration,
        status=row.status,
        ended_at=to_text(row.ended_at),
        next_run_at=None if until is None else to_text(until),
        archive_new=None if archive_new is None else int(archive_new),
        line=json.dumps(as_json(row)),
    )
    if changed:
        count(db, "kloros_loop_iterations_total", status=row.status)
        gauges(db, kloros_loop_last_iteration_timestamp_seconds=row.ended_at.timestamp())
    return bool(changed)


def note_gauges(db: Database, *, max_failures: int, next_run_at: datetime | None) -> None:
    """Note what the metrics say of the loop; `next_run_at` None: no run is planned. Inside a transaction."""
    now = past(db)
    gauges(
        db,
        kloros_loop_consecutive_failures=now.failures_in_a_row,
        kloros_loop_failure_limit_reached=0 < max_failures <= now.failures_in_a_row,
        kloros_loop_archives_stale=now.stale,
        kloros_loop_next_run_timestamp_seconds=0.0 if next_run_at is None else next_run_at.timestamp(),
    )


def still_open(db: Database) -> list[Open]:
    """Return the iterations that have not ended, oldest first."""
    return [
        Open(
            cast("int", row["iteration"]),
            cast("str", row["token"]),
            from_text(cast("str", row["started_at"])),
            _plan(cast("str", row["plan"])),
            cast("CycleNumber | None", row["cycle"]),
        )
        for row in db.rows("iterations.open")
    ]


def past(db: Database) -> Past:
    """Return what the iterations that have ended mean for the next one."""
    rows = db.rows("iterations.recent", limit=_LOOKED_AT)
    (streak,) = db.rows("iterations.failures_in_a_row")
    waiting = rows[0] if rows and Status(cast("str", rows[0]["status"])) in FAILURES else None
    return Past(
        cast("int", streak["failures"]),
        without_archive(None if row["archive_new"] is None else bool(row["archive_new"]) for row in rows),
        from_text(cast("str", rows[0]["ended_at"])) if rows else None,
        None if waiting is None else from_text_or_none(cast("str | None", waiting["next_run_at"])),
    )


def unwritten(db: Database) -> list[tuple[int, str, str]]:
    """Return the rows that are not in their file yet: iteration, path, line."""
    return [
        (cast("int", row["iteration"]), cast("str", row["history_path"]), cast("str", row["line"]))
        for row in db.rows("iterations.unwritten")
    ]


def note_written(db: Database, iteration: int) -> None:
    """Note that a row is in its file."""
    db.run("iterations.written", iteration=iteration)


def last_line(db: Database) -> dict[str, Any] | None:
    """Return the newest row, as JSON has it."""
    return next((json.loads(str(row["line"])) for row in db.rows("iterations.last_line")), None)


def totals(db: Database) -> dict[str, int]:
    """Count the iterations by status."""
    found = {cast("str", row["status"]): cast("int", row["iterations"]) for row in db.rows("iterations.totals")}
    return {str(status): found.get(status, 0) for status in Status}


def as_json(row: Row) -> dict[str, Any]:
    """Return a row as the history has it."""
    instants = {name: to_text(value) for name, value in row._asdict().items() if isinstance(value, datetime)}
    return {**row._asdict(), **instants, "prerequisites": [one._asdict() for one in row.prerequisites]}


def _plan_text(plan: Plan) -> str:
    return json.dumps(plan._asdict())


def _plan(text: str) -> Plan:
    read = json.loads(text)
    prerequisites = tuple(Prerequisite(*one) for one in read["prerequisites"])
    return Plan(**{**read, "prerequisites": prerequisites, "known": tuple(read["known"])})
