"""The versions of the baseline in the store, which is the truth about them; the files are copies (`copies.py`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, cast

from orchestration.baseline.version import Kind, Provenance, Version, following, set_by
from orchestration.errors import KlorosError, Usage
from orchestration.store.instants import from_text, to_text
from orchestration.store.port import Database, Row

if TYPE_CHECKING:
    from orchestration.promotions.baseline import Accepted, Baseline
    from orchestration.promotions.promotion import Bounds, Number

PROGRAM = "kloros"
"""The actor of what no person did."""
_AS_IT_WAS = "baseline.json as it was before there were versions"


class BaselineMoved(KlorosError):
    """Another commit was faster: the version this one was made from is not the newest any more."""

    retryable = True


def newest(db: Database) -> Version | None:
    """Return the version in force; None before the first."""
    return next(iter(_versions(db.rows("baseline.newest"))), None)


def get(db: Database, version: int) -> Version | None:
    """Return one version; None when there is none of this number."""
    return next(iter(_versions(db.rows("baseline.get", version=version))), None)


def every(db: Database) -> list[Version]:
    """Return all versions, oldest first."""
    return _versions(db.rows("baseline.all"))


def recent(db: Database, limit: int) -> list[Version]:
    """Return the newest versions, newest first."""
    return _versions(db.rows("baseline.recent", limit=limit))


def unwritten(db: Database) -> list[Version]:
    """Return the versions whose files are not in place, oldest first; by an index, for every tick."""
    return _versions(db.rows("baseline.unwritten"))


def was_in_force_before(version: Version) -> bool:
    """Tell whether its parameters were in force before there were versions."""
    made = version.provenance
    return made.kind is Kind.IMPORTED and made.reason == _AS_IT_WAS


def retired(db: Database) -> frozenset[int]:
    """Return the numbers of the versions whose files retention let go."""
    return frozenset(cast("int", row["version"]) for row in db.rows("baseline.retired"))


def beyond(db: Database, keep: int) -> dict[int, str]:
    """Return number and hash of the versions that are not among the newest `keep`."""
    return {cast("int", row["version"]): cast("str", row["sha256"]) for row in db.rows("baseline.beyond", keep=keep)}


def retire(db: Database, keep: int, *, at: datetime) -> None:
    """Note that the files of all but the newest `keep` versions go. Inside a transaction."""
    db.run("baseline.retire", keep=keep, now=to_text(at))


def append(db: Database, version: Version) -> Version:
    """Commit a version that was made by `following`. Inside a transaction.

    Raises:
        BaselineMoved: it does not follow the newest one.
    """
    made = version.provenance
    added = db.run(
        "baseline.append",
        version=version.version,
        sha256=version.sha256,
        previous_sha=version.previous_sha,
        ts=to_text(made.at),
        actor=made.actor,
        kind=made.kind,
        reason=made.reason,
        cycle=made.cycle,
        promotion_ids=json.dumps(version.promotions),
        parameters=json.dumps(version.parameters),
        fitness=version.fitness,
    )
    if not added:
        hint = "look at it with klorosctl baseline show, and try again"
        raise BaselineMoved(f"the baseline is not version {version.version - 1} any more", hint=hint)
    return version


def take_in(db: Database, accepted: Iterable[Accepted], provenance: Provenance, *, state_dir: str) -> Version | None:
    """Commit accepted promotions on top of today's baseline; None when there are none. Inside a transaction.

    Raises:
        BaselineInvalid: there is a `baseline.json` from before there were versions, and it can't be understood.
    """
    from orchestration.promotions.baseline import with_accepted

    given = list(accepted)
    if not given:
        return None
    before = newest(db) or _import_older(db, state_dir, provenance)
    parameters, fitness, stems = with_accepted({} if before is None else before.parameters, given)
    return append(db, following(before, provenance, parameters, promotions=stems, fitness=fitness))


def put(db: Database, parameters: Mapping[str, Number], provenance: Provenance, *, state_dir: str) -> Version:
    """Commit a person's values on top of today's baseline. Inside a transaction.

    Raises:
        BaselineInvalid: as `take_in`.
    """
    before = newest(db) or _import_older(db, state_dir, provenance)
    return append(db, following(before, provenance, {**(before.parameters if before else {}), **parameters}))


def put_back(db: Database, number: int, provenance: Provenance) -> Version:
    """Commit the parameters of an earlier version again, as a new one. Inside a transaction.

    Raises:
        Usage: there is no such version, or it is the one in force.
    """
    now, wanted = ends(db, number)
    return append(db, following(now, provenance, wanted.parameters, fitness=wanted.fitness))


def ends(db: Database, number: int) -> tuple[Version, Version]:
    """Return both ends of a rollback to version `number`: the version in force, and that one.

    Raises:
        Usage: there is no such version, or it is the one in force.
    """
    wanted, now = get(db, number), newest(db)
    if wanted is None or now is None:
        there = f"versions 1 to {now.version}" if now else "no version yet"
        raise Usage(f"there is no baseline version {number}", hint=f"there is {there}: klorosctl baseline history")
    if wanted.version == now.version:
        raise Usage(f"version {number} is the one in force", hint="klorosctl baseline history shows the earlier ones")
    return now, wanted


def outside(now: Version, then: Version, *, bounds: Bounds, strict: bool) -> str:
    """Say what putting `then` in force in place of `now` would set out of bounds; empty when nothing."""
    from orchestration.promotions.promotion import checked_changes

    try:
        checked_changes(set_by(now, then), bounds=bounds, strict=strict)
    except ValueError as error:
        return str(error)
    return ""


def in_force(db: Database, state_dir: str) -> tuple[int | None, Mapping[str, Number]]:
    """Return number and parameters of the version in force; None and the older baseline's, if any, before the first.

    Raises:
        BaselineInvalid: there are no versions yet, and `baseline.json` can't be understood.
    """
    version = newest(db)
    if version is not None:
        return version.version, version.parameters
    found = older(state_dir)
    return None, {} if found is None else found.parameters


def cycle_in_force(db: Database, state_dir: str) -> int | None:
    """Return the cycle that the baseline in force is of; None when it is of none.

    Raises:
        BaselineInvalid: there are no versions yet, and `baseline.json` can't be understood.
    """
    version = newest(db)
    if version is not None:
        return version.provenance.cycle
    found = older(state_dir)
    return None if found is None else found.cycle or None


def older(state_dir: str) -> Baseline | None:
    """Return the `baseline.json` that a person or a release before the versions left; None when there is none.

    Raises:
        BaselineInvalid: there is one, and it can't be understood.
    """
    from orchestration.promotions.baseline import baseline_path, read_baseline

    return read_baseline(baseline_path(state_dir))


def _import_older(db: Database, state_dir: str, provenance: Provenance) -> Version | None:
    found = older(state_dir)
    if found is None:
        return None
    made = Provenance(
        at=provenance.at,
        actor=PROGRAM,
        kind=Kind.IMPORTED,
        reason=_AS_IT_WAS,
        cycle=found.cycle or None,
    )
    first = following(None, made, found.parameters, promotions=found.promotions, fitness=found.fitness)
    return append(db, first)


def _versions(rows: Iterable[Row]) -> list[Version]:
    return [
        Version(
            version=cast("int", row["version"]),
            sha256=cast("str", row["sha256"]),
            previous_sha=cast("str", row["previous_sha"]),
            provenance=Provenance(
                at=from_text(cast("str", row["ts"])),
                actor=cast("str", row["actor"]),
                kind=Kind(cast("str", row["kind"])),
                reason=cast("str", row["reason"]),
                cycle=cast("int | None", row["cycle"]),
            ),
            promotions=tuple(json.loads(cast("str", row["promotion_ids"]))),
            parameters=json.loads(cast("str", row["parameters"])),
            fitness=cast("float | None", row["fitness"]),
        )
        for row in rows
    ]
