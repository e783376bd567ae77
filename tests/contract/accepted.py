"""Fills a store with what follows a cycle, by the programs that write it: versions, verdicts, escrow, hints."""

from __future__ import annotations

from datetime import timedelta

from orchestration.baseline import copies, escrow_ledger, history, verdicts
from orchestration.baseline.escrow import Entry, Kind
from orchestration.baseline.validation import Verdict
from orchestration.baseline.version import Kind as VersionKind
from orchestration.baseline.version import Provenance, Version, following
from orchestration.phase import hints
from tests.contract.seeded import NOW, Seeded

HOUR = timedelta(hours=1)


def commit(world: Seeded, hours_ago: float, **values: float) -> Version:
    """Put a next version in force."""
    made = Provenance(
        at=NOW - hours_ago * HOUR, actor="kloros", kind=VersionKind.CYCLE, reason="cycle 1 accepted 1", cycle=1
    )
    with world.db.transaction():
        version = following(history.newest(world.db), made, values, promotions=["one"], fitness=0.5)
        history.append(world.db, version)
    copies.bring_up(world.db, str(world.home / "baseline"))
    return version


def hold(world: Seeded, entry: str, hours_ago: float, *, expires_in: float | None = None) -> None:
    """Let a promotion wait for a person."""
    with world.db.transaction():
        added = escrow_ledger.hold(
            world.db,
            Entry(
                entry=entry,
                kind=Kind.PROMOTION,
                stem=f"stem-{entry}",
                cycle=7,
                rule="learning_rate 0.01 → 0.05: {change_over = 0.5}",
                changes={"learning_rate": 0.05, "beta": 2},
                before={"learning_rate": 0.01, "beta": None},
                fitness=0.6,
                evidence={},
                emitted_by="ada",
                created_at=NOW - hours_ago * HOUR,
                expires_at=None if expires_in is None else NOW + expires_in * HOUR,
            ),
        )
    assert added


def conclude(world: Seeded, version: int, verdict: Verdict, change: float, *, hours_ago: float = 2) -> None:
    """Note a verdict."""
    with world.db.transaction():
        verdicts.conclude(
            world.db,
            verdicts.Concluded(
                version=version,
                verdict=verdict,
                before=(0.7, 0.8, 0.9),
                after=(0.6, 0.5, 0.7),
                cycles_before=(1, 2, 3),
                cycles_after=(4, 5, 6),
                change=change,
                reason=f"{change:+.0%} in the median of 3 PHASEs",
                cycle=6,
                made=None,
                entry=None,
                at=NOW - hours_ago * HOUR,
            ),
        )


def advise(world: Seeded, cycle: int) -> None:
    """Give a PHASE its hints, as the runner does."""
    folder = world.home / f"advised_{cycle}"
    (folder / "artifacts").mkdir(parents=True)
    hints.give(world.db, cycle, folder=str(folder), state_dir=str(world.home))
