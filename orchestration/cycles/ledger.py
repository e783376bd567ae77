"""The cycles in the store: queue, claim, finish, settle, and the questions the tick asks of them.

Every change of state goes through the lifecycle table of `cycle.py` and is a compare-and-set on the state it leaves.
Callers that need several changes to stand together open the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, cast

from orchestration.cycles.backoff import Failures
from orchestration.cycles.cycle import (
    ACTIVE,
    Cause,
    Cycle,
    CycleEvent,
    CycleNumber,
    CycleState,
    Executor,
    JobName,
    Origin,
    Result,
    after,
)
from orchestration.cycles.job import Job
from orchestration.store.counters import count, observe
from orchestration.store.instants import from_text, from_text_or_none, to_text
from orchestration.store.port import Database, Row

DURATION_BUCKETS = (1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0)
_LONGEST_STREAK = 50


def enqueue(
    db: Database,
    *,
    job: Job,
    origin: Origin,
    token: str,
    now: datetime,
    phase_date: date | None = None,
    number: CycleNumber | None = None,
) -> CycleNumber:
    """Queue a cycle and return its number: the next one, or `number`, which must be free.

    `token` is random and unique; it marks the cycle's processes.
    """
    db.run(
        "cycles.enqueue",
        number=number,
        job=job.name,
        token=token,
        cause=origin.cause,
        origin=json.dumps(origin._asdict()),
        command=json.dumps(job.command),
        working_dir=job.working_dir,
        timeout_seconds=job.timeout.total_seconds(),
        executor=job.executor,
        hosts=json.dumps(job.hosts) if job.hosts else "",
        phase_date=None if phase_date is None else phase_date.isoformat(),
        queued_at=to_text(now),
    )
    return cast("CycleNumber", db.rows("cycles.number_of", token=token)[0]["cycle"])


def claim_next(db: Database, *, runner: str, now: datetime, unable: Iterable[JobName] = ()) -> Cycle | None:
    """Claim the oldest queued cycle that this host may run, or return None when there is none.

    One statement that needs no transaction: where hosts share a store, two that claim at once take two different cycles, and
    neither waits for who writes meanwhile. A claim that is over by the time it is looked at was of a host that had been
    silent for so long that its cycle counted as lost.

    Args:
        runner: a record for people. unable: jobs that this host must leave to others.
    """
    while taken := db.rows("cycles.claim_next", runner=runner, now=to_text(now), unable=json.dumps(list(unable))):
        cycle = get(db, cast("CycleNumber", taken[0]["cycle"]))
        if cycle is not None and cycle.state is CycleState.RUNNING:
            return cycle
    return None


def claim(db: Database, cycle: CycleNumber, *, runner: str, now: datetime) -> Cycle | None:
    """Claim one queued cycle for this runner; None when it is queued no more."""
    return get(db, cycle) if db.run("cycles.claim", cycle=cycle, runner=runner, now=to_text(now)) else None


def finish(db: Database, cycle: Cycle, event: CycleEvent, result: Result, *, now: datetime) -> bool:
    """End a cycle and count it; False when it no longer stands where `cycle` says, and nothing was changed.

    Raises:
        ValueError: the lifecycle table does not allow this event in the cycle's state.
    """
    state = after(cycle.state, event)
    if state is None:
        raise ValueError(f"cycle {cycle.cycle} is {cycle.state}: it can't {event}")
    changed = db.run(
        "cycles.finish",
        cycle=cycle.cycle,
        expected=cycle.state,
        state=state,
        result=json.dumps(result._asdict()),
        now=to_text(now),
    )
    if changed:
        _count_end(db, cycle, state, now)
    return bool(changed)


def _count_end(db: Database, cycle: Cycle, state: CycleState, now: datetime) -> None:
    count(db, "kloros_cycles_total", job=cycle.job, result=state)
    if cycle.started_at is not None:
        seconds = max(0.0, (now - cycle.started_at).total_seconds())
        observe(db, "kloros_cycle_duration_seconds", seconds, buckets=DURATION_BUCKETS, job=cycle.job)


def settle(db: Database, cycle: CycleNumber, *, now: datetime) -> bool:
    """Note that a finished cycle's consequences stand; False when that was noted before."""
    return bool(db.run("cycles.settle", cycle=cycle, now=to_text(now)))


def ask_cancel(db: Database, cycle: CycleNumber, *, now: datetime) -> bool:
    """Ask for a queued or running cycle to be ended; False when it is neither, or was asked before."""
    return bool(db.run("cycles.ask_cancel", cycle=cycle, now=to_text(now)))


def forget(db: Database, cycle: CycleNumber) -> None:
    """Free the number of a finished cycle that is run again; its folder and manifest are kept aside."""
    db.run("cycles.forget", cycle=cycle)
    db.run("products.forget", cycle=cycle)
    db.run("bundles.forget", cycle=cycle)
    db.run("federation.forget", cycle=cycle)
    db.run("validation.forget", cycle=cycle)


def over(db: Database, *, keep_last: int, before: datetime, limit: int = -1, held_too: bool = False) -> list[CycleNumber]:
    """Return settled cycles on disk that neither number, age nor a person keeps, the longest ended first.

    Args:
        keep_last: cycles that their number keeps. before: those that ended later are kept by their age.
        limit: at most so many; -1 for all. held_too: also those that were found to be held by a reference.
    """
    found = db.rows("cycles.over", keep_last=keep_last, before=to_text(before), limit=limit, held_too=int(held_too))
    return [cast("CycleNumber", row["cycle"]) for row in found]


def active(db: Database) -> list[Cycle]:
    """Return the queued and running cycles, oldest first, but for WAKE, which has a lane of its own."""
    return _cycles(db.rows("cycles.active"))


def standing(db: Database) -> list[Cycle]:
    """Return the queued and running cycles of every lane, oldest first."""
    return [cycle for cycle in watched(db) if cycle.state in ACTIVE]


def watched(db: Database) -> list[Cycle]:
    """Return the queued and running cycles of every lane, and WAKE cycles that ended and are not settled; oldest first."""
    return _cycles(db.rows("cycles.watched"))


def exclusive(db: Database) -> list[Cycle]:
    """Return the cycles that keep every other from starting, oldest first: queued, running, or ended and not settled.

    A runner may end a cycle at any moment, also between two looks of one tick. What the cycle means is applied by the tick
    that settles it; until then nobody may act as if it had not been run.
    """
    return _cycles(db.rows("cycles.exclusive"))


def unsettled(db: Database) -> list[Cycle]:
    """Return the finished cycles that no tick has settled, oldest first."""
    return _cycles(db.rows("cycles.unsettled"))


def get(db: Database, cycle: CycleNumber) -> Cycle | None:
    """Return one cycle, or None when the number was never given."""
    return next(iter(_cycles(db.rows("cycles.get", cycle=cycle))), None)


def of_token(db: Database, token: str) -> Cycle | None:
    """Return the cycle of a token, or None when there is none."""
    return next(iter(_cycles(db.rows("cycles.of_token", token=token))), None)


def recent(db: Database, limit: int) -> list[Cycle]:
    """Return the newest cycles, newest first."""
    return _cycles(db.rows("cycles.recent", limit=limit))


def last_queued(db: Database, at: datetime) -> Cycle | None:
    """Return the newest cycle that was queued by an instant, settled or not, but for WAKE, which has a lane of its own."""
    return next(iter(_cycles(db.rows("cycles.last_queued", at=to_text(at)))), None)


def of_date(db: Database, day: date) -> list[Cycle]:
    """Return the PHASE cycles that answer a local date, newest first."""
    return _cycles(db.rows("cycles.of_date", phase_date=day.isoformat()))


def last_succeeded(db: Database, job: JobName) -> Cycle | None:
    """Return the newest succeeded cycle of a job."""
    return next(iter(_cycles(db.rows("cycles.last_succeeded", job=job))), None)


def last_phase(db: Database) -> tuple[str, str]:
    """Return epoch and report's SHA-256 of the last succeeded PHASE; empty before the first."""
    phase = last_succeeded(db, JobName.PHASE)
    if phase is None or phase.result is None:
        return "", ""
    return phase.result.epoch or "", phase.result.report_sha or ""


def failures_in_a_row(db: Database, job: JobName, cause: Cause) -> Failures:
    """Count the ends without success since the last success, among cycles of one cause.

    A cancelled cycle waits like a failed one, so that what a person ended does not start again at once.
    """
    ends = db.rows("cycles.ended_for_cause", job=job, cause=cause, limit=_LONGEST_STREAK)
    return _streak([(CycleState(cast("str", end["state"])), cast("str", end["ended_at"])) for end in ends])


def streak(newest_first: Iterable[Cycle]) -> Failures:
    """Count the ends without success before the first success among these cycles."""
    return _streak([(cycle.state, to_text(cycle.ended_at)) for cycle in newest_first if cycle.ended_at is not None])


def _streak(ends: list[tuple[CycleState, str]]) -> Failures:
    states = [state for state, _ in ends]
    number = states.index(CycleState.SUCCEEDED) if CycleState.SUCCEEDED in states else len(states)
    return Failures(number, from_text(ends[0][1]) if number else None)


def _cycles(rows: Iterable[Row]) -> list[Cycle]:
    return [_cycle(row) for row in rows]


def _cycle(row: Row) -> Cycle:
    text = cast("dict[str, Any]", {column: row[column] for column in row.keys()})  # noqa: SIM118 (a Row is no dict)
    origin, result = json.loads(text["origin"]), text["result"]
    return Cycle(
        cycle=CycleNumber(text["cycle"]),
        job=JobName(text["job"]),
        state=CycleState(text["state"]),
        token=text["token"],
        origin=_origin(origin),
        command=tuple(json.loads(text["command"])),
        working_dir=text["working_dir"],
        timeout=timedelta(seconds=text["timeout_seconds"]),
        phase_date=None if text["phase_date"] is None else date.fromisoformat(text["phase_date"]),
        queued_at=from_text(text["queued_at"]),
        started_at=from_text_or_none(text["started_at"]),
        ended_at=from_text_or_none(text["ended_at"]),
        settled_at=from_text_or_none(text["settled_at"]),
        cancel_asked_at=from_text_or_none(text["cancel_asked_at"]),
        runner=text["runner"],
        result=None if result is None else Result(**json.loads(result)),
        executor=Executor(text["executor"]),
        hosts=tuple(json.loads(text["hosts"])) if text["hosts"] else (),
        host=text["host"],
    )


def _origin(read: dict[str, Any]) -> Origin:
    lists = {"promotions": tuple(read["promotions"]), "variables": tuple(map(tuple, read.get("variables", ())))}
    return Origin(**{**read, "cause": Cause(read["cause"]), **lists})
