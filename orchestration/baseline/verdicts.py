"""The results of PHASEs and the verdicts on versions, in the store; the rules are in `validation.py`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from orchestration.baseline import history
from orchestration.baseline.validation import Comparison, Result, Verdict, compare
from orchestration.baseline.version import Kind, Version
from orchestration.store import counters
from orchestration.store.instants import from_text, to_text
from orchestration.store.port import Database, Row

_MOST: Final = 200  # results of one version that are looked at, the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Concluded:
    """The verdict on a version, with its numbers; `at` is aware UTC."""

    version: int
    verdict: Verdict
    before: tuple[float, ...]  # results compared with, oldest first
    after: tuple[float, ...]
    cycles_before: tuple[int, ...]  # of which PHASEs they are
    cycles_after: tuple[int, ...]
    change: float  # relative, +0.02 for +2 %
    reason: str
    cycle: int  # the PHASE whose settling decided it
    made: int | None  # the version that a rollback made
    entry: str | None  # the escrow entry that asks a person instead
    at: datetime


def note_result(db: Database, cycle: int, *, phase_type: str, measure: str, value: float, counts: bool = True) -> None:
    """Note what a PHASE came to, and whether it can count for a version. Inside the transaction that settles it."""
    db.run(
        "validation.note_result",
        cycle=cycle,
        phase_type=phase_type,
        measure=measure,
        result=value,
        counts=int(counts),
    )


def version_of(db: Database, cycle: int) -> int | None:
    """Return the version that a PHASE's result counts for, 0 for none at all; None when it counts for nothing."""
    rows = db.rows("validation.version_of", cycle=cycle)
    return cast("int", rows[0]["version"]) if rows else None


def compared(db: Database, version: Version, before: Version | None, *, results: int) -> Comparison:
    """Compare the results under a version with those under the version before, None before the first.

    A version that was imported is compared with nothing. Results from before there were versions are those of the parameters
    that were in force then, imported from `baseline.json`.
    """
    if version.provenance.kind is Kind.IMPORTED:
        return compare((), (), results=results)
    numbers = {0} if before is None else {before.version}
    if before is not None and history.was_in_force_before(before):
        numbers.add(0)
    old = [one for number in numbers for one in _results(db, number)]
    return compare(old, _results(db, version.version), results=results)


def conclude(db: Database, concluded: Concluded) -> None:
    """Note a verdict, once, and count it. Inside a transaction."""
    added = db.run(
        "validation.conclude",
        version=concluded.version,
        verdict=concluded.verdict,
        before=json.dumps(concluded.before),
        after=json.dumps(concluded.after),
        phases=json.dumps({"before": concluded.cycles_before, "after": concluded.cycles_after}),
        change=concluded.change,
        reason=concluded.reason,
        cycle=concluded.cycle,
        made=concluded.made,
        entry=concluded.entry,
        now=to_text(concluded.at),
    )
    if added:
        counters.count(db, "kloros_baseline_verdicts_total", verdict=str(concluded.verdict))


def verdict(db: Database, version: int) -> Concluded | None:
    """Return the verdict on a version; None while it is undecided."""
    return next(iter(_concluded(db.rows("validation.verdict", version=version))), None)


def verdicts(db: Database, first: int, last: int) -> dict[int, Concluded]:
    """Return the verdicts on the versions from `first` to `last`."""
    return {one.version: one for one in _concluded(db.rows("validation.verdicts", first=first, last=last))}


def _results(db: Database, version: int) -> list[Result]:
    return [
        Result(
            cycle=cast("int", row["cycle"]),
            phase_type=str(row["phase_type"]),
            measure=str(row["measure"]),
            value=cast("float", row["result"]),
        )
        for row in db.rows("validation.results", version=version, limit=_MOST)
    ]


def _concluded(rows: Iterable[Row]) -> list[Concluded]:
    found = []
    for row in rows:
        phases = json.loads(str(row["phases"]))
        found.append(
            Concluded(
                version=cast("int", row["version"]),
                verdict=Verdict(str(row["verdict"])),
                before=tuple(json.loads(str(row["before"]))),
                after=tuple(json.loads(str(row["after"]))),
                cycles_before=tuple(phases["before"]),
                cycles_after=tuple(phases["after"]),
                change=cast("float", row["change"]),
                reason=str(row["reason"]),
                cycle=cast("int", row["cycle"]),
                made=cast("int | None", row["made"]),
                entry=cast("str | None", row["entry"]),
                at=from_text(str(row["decided_at"])),
            )
        )
    return found
