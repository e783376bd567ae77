"""The iterations in the store, which is the truth about them; the history file is its copy."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple, cast

from orchestration.cycles.cycle import CycleNumber
from orchestration.loop.iteration import FAILURES, Plan, Prerequisite, Row, Status, failures_in_a_row, without_archive
from orchestration.store.instants import from_text, from_text_or_none, to_text
from orchestration.store.port import Database

_LONGEST_STREAK = 50


class Open(NamedTuple):
    """An iteration that has begun and not ended."""

    iteration: int
    token: str
    started_at: datetime
    plan: Plan
    cycle: CycleNumber | None


class Past(NamedTuple):
    """What the iterations before mean for the next one."""

    failures_in_a_row: int
    without_archive: int
    last_ended_at: datetime | None
    wait_until: datetime | None  # after a failure


def begin(db: Database, *, token: str, now: datetime, plan: Plan, history_path: str) -> Open:
    """Note an iteration that begins, under the next number."""
    db.run("iterations.begin", token=token, started_at=to_text(now), plan=_plan_text(plan), history_path=history_path)
    number = cast("int", db.rows("iterations.number_of", token=token)[0]["iteration"])
    return Open(number, token, now, plan, None)


def plan(db: Database, iteration: Open) -> None:
    """Note an iteration's plan and cycle as they are now."""
    db.run("iterations.plan", iteration=iteration.iteration, plan=_plan_text(iteration.plan), cycle=iteration.cycle)


def end(db: Database, row: Row, *, archive_new: bool | None) -> bool:
    """Note how an iteration ended; False when that was noted before. `archive_new` None: its command was not run."""
    return bool(
        db.run(
            "iterations.end",
            iteration=row.iteration,
            status=row.status,
            ended_at=to_text(row.ended_at),
            next_run_at=None if row.next_run_at is None else to_text(row.next_run_at),
            archive_new=None if archive_new is None else int(archive_new),
            line=json.dumps(as_json(row)),
        )
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
    rows = db.rows("iterations.recent", limit=_LONGEST_STREAK)
    statuses = [Status(cast("str", row["status"])) for row in rows]
    failures = failures_in_a_row(statuses)
    waiting = rows[0] if rows and statuses[0] in FAILURES else None
    return Past(
        failures,
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
    return next((json.loads(str(row["line"])) for row in db.rows("iterations.recent", limit=1)), None)


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
