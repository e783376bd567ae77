"""The entries of escrow in the store, which is the truth about them: the table `escrow`. The files are copies.

    hold(db, entry)             puts an accepted promotion before a person
    hold_rollback(db, target=…) puts a rollback of the version in force before a person
    approve, reject, expire     what becomes of an entry, once

All inside a transaction of the caller's, which holds the kernel's lock. An approval commits its version of the baseline in
that same transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from orchestration.baseline import history
from orchestration.baseline.escrow import Entry, Event, Kind, Reviewer, Status, after, entry_id, same_eyes
from orchestration.baseline.version import Kind as VersionKind
from orchestration.baseline.version import Provenance, Version
from orchestration.errors import KlorosError
from orchestration.promotions.baseline import Accepted
from orchestration.promotions.promotion import Bounds, Number, checked_changes
from orchestration.store import counters
from orchestration.store.instants import from_text, from_text_or_none, to_text
from orchestration.store.port import Database, Row


class NotReviewable(KlorosError):
    """The entry can't be decided on like this; nothing was changed."""


class Terms(NamedTuple):
    """What holds for approvals today: the settings, and what the reviewer has said."""

    bounds: Bounds
    strict: bool
    four_eyes: bool
    state_dir: str
    anyway: bool = False  # a rollback may undo what came since it was held


def hold(db: Database, entry: Entry) -> bool:
    """Put an entry before a person; False when it was put there before, whatever became of it. Inside a transaction."""
    added = db.run(
        "escrow.hold",
        entry=entry.entry,
        kind=entry.kind,
        stem=entry.stem,
        promotion_id=entry.promotion_id,
        target=entry.target,
        against=entry.against,
        cycle=entry.cycle,
        rule=entry.rule,
        changes=json.dumps(entry.changes),
        before=json.dumps(entry.before),
        fitness=entry.fitness,
        evidence=json.dumps(entry.evidence),
        emitted_by=entry.emitted_by,
        four_eyes=int(entry.four_eyes),
        status=entry.status,
        created_at=to_text(entry.created_at),
        expires_at=None if entry.expires_at is None else to_text(entry.expires_at),
    )
    return added > 0


def hold_rollback(
    db: Database,
    target: int,
    *,
    rule: str,
    evidence: Mapping[str, object],
    at: datetime,
    expires_after: timedelta,
    cycle: int | None = None,
) -> str | None:
    """Put the rollback of the version in force to version `target` before a person. Inside a transaction.

    Args:
        rule: what asks for it, in words. evidence: the numbers, as JSON has them. expires_after: the setting, 0 for never.
        cycle: the one on whose results it rests.

    Returns:
        The entry's id; None when this rollback of this version was asked for before, whatever became of it.

    Raises:
        Usage: there is no such version, or it is the one in force.
    """
    now, wanted = history.ends(db, target)
    names = sorted(name for name in {**wanted.parameters, **now.parameters} if _differ(name, wanted, now))
    entry = Entry(
        entry=entry_id(now.sha256, f"rollback {target}"),
        kind=Kind.ROLLBACK,
        target=target,
        against=now.version,
        cycle=cycle,
        rule=rule,
        changes={name: wanted.parameters.get(name) for name in names},
        before={name: now.parameters.get(name) for name in names},
        fitness=wanted.fitness,
        evidence=evidence,
        created_at=at,
        expires_at=at + expires_after if expires_after else None,
    )
    return entry.entry if hold(db, entry) else None


def get(db: Database, entry: str) -> Entry | None:
    """Return one entry; None when there is none of this id."""
    return next(iter(_entries(db.rows("escrow.get", entry=entry))), None)


def pending(db: Database) -> list[Entry]:
    """Return what waits for a person, the oldest first."""
    return _entries(db.rows("escrow.pending"))


def every(db: Database) -> list[Entry]:
    """Return all entries, the oldest first."""
    return _entries(db.rows("escrow.all"))


def recent(db: Database, *, limit: int) -> list[Entry]:
    """Return the newest entries, the newest first, whatever became of them."""
    return _entries(db.rows("escrow.recent", limit=limit))


def unwritten(db: Database) -> list[Entry]:
    """Return the entries whose files don't say what the store says."""
    return _entries(db.rows("escrow.unwritten"))


def approve(db: Database, entry: Entry, reviewer: Reviewer, reason: str, *, at: datetime, terms: Terms) -> Version:
    """Commit what waits, on top of today's baseline and within today's bounds, and close the entry. Inside a transaction.

    Raises:
        NotReviewable: it does not wait any more, its time is over, it is out of bounds, four eyes are two, or a rollback
            would undo what came since.
        Usage: a rollback leads to the version in force.
        BaselineInvalid: as `history.take_in`.
    """
    _refuse_unless_waiting(entry, Event.APPROVE, at)
    refused = same_eyes(entry, reviewer, four_eyes=terms.four_eyes)
    if refused is not None:
        raise NotReviewable(refused, hint=f"somebody else may: klorosctl escrow approve|reject {entry.entry}")
    source = f"approved from escrow {entry.entry}{f': {reason}' if reason else ''}"
    if entry.kind is Kind.ROLLBACK:
        made = _roll_back(db, entry, Provenance(at=at, actor=reviewer.name, kind=VersionKind.ROLLBACK, reason=source), terms)
    else:
        by = Provenance(at=at, actor=reviewer.name, kind=VersionKind.ESCROW, reason=source, cycle=entry.cycle)
        made = _take_in(db, entry, by, terms)
    _close(db, entry, Event.APPROVE, by=reviewer.name, reason=reason, at=at, version=made.version)
    return made


def reject(db: Database, entry: Entry, by: str, reason: str, *, at: datetime) -> None:
    """Close an entry without a change. Inside a transaction.

    Raises:
        NotReviewable: it does not wait any more, or its time is over.
    """
    _refuse_unless_waiting(entry, Event.REJECT, at)
    _close(db, entry, Event.REJECT, by=by, reason=reason, at=at)


def expire(db: Database, *, at: datetime) -> list[Entry]:
    """Close what has waited for too long, and return it as it was. Inside a transaction."""
    late = _entries(db.rows("escrow.expired", now=to_text(at)))
    for entry in late:
        _close(db, entry, Event.EXPIRE, by=history.PROGRAM, reason="nobody decided in time", at=at)
    return late


def supersede(db: Database, stems: Iterable[str], *, cycle: int, at: datetime) -> list[Entry]:
    """Reject what waits for these promotions from earlier cycles: this one accepted them anew. Inside a transaction."""
    earlier = _entries(db.rows("escrow.waiting_of", stems=json.dumps(sorted(stems)), cycle=cycle))
    for entry in earlier:
        _close(db, entry, Event.REJECT, by=history.PROGRAM, reason=f"cycle {cycle} accepted it anew", at=at)
    return earlier


def _take_in(db: Database, entry: Entry, by: Provenance, terms: Terms) -> Version:
    asked = {name: value for name, value in entry.changes.items() if value is not None}
    try:
        changed = checked_changes(asked, bounds=terms.bounds, strict=terms.strict)
    except ValueError as error:
        raise _out_of_bounds(entry, str(error)) from error
    accepted = Accepted(stem=entry.stem, changes=changed, fitness=cast(float, entry.fitness))
    return cast(Version, history.take_in(db, [accepted], by, state_dir=terms.state_dir))


def _roll_back(db: Database, entry: Entry, by: Provenance, terms: Terms) -> Version:
    target = cast(int, entry.target)
    now, wanted = history.ends(db, target)
    if now.version != entry.against and not terms.anyway:
        moved = f"the baseline was version {entry.against} when it was held and is version {now.version} by now"
        hint = f"see klorosctl escrow show {entry.entry}; if that is meant: klorosctl escrow approve {entry.entry} --anyway"
        raise NotReviewable(f"{entry.subject} would undo more than was asked for: {moved}", hint=hint)
    found = history.outside(now, wanted, bounds=terms.bounds, strict=terms.strict)
    if found:
        raise _out_of_bounds(entry, found)
    return history.put_back(db, target, replace(by, reason=f"to version {target}, {by.reason}"))


def _out_of_bounds(entry: Entry, found: str) -> NotReviewable:
    hint = f"widen [promotions] bounds first: klorosctl config show; or: klorosctl escrow reject {entry.entry}"
    return NotReviewable(f"{entry.subject} is out of today's bounds: {found}", hint=hint)


def _refuse_unless_waiting(entry: Entry, event: Event, at: datetime) -> None:
    if after(entry.status, event) is None:
        seen = f"it is {entry.status} since {_when(entry.reviewed_at)}, by {entry.reviewed_by}"
        raise NotReviewable(f"escrow {entry.entry} waits no more: {seen}", hint=f"klorosctl escrow show {entry.entry}")
    if entry.expires_at is not None and entry.expires_at <= at:
        raise NotReviewable(f"escrow {entry.entry} expired at {_when(entry.expires_at)}", hint=_after_expiry(entry))


def _after_expiry(entry: Entry) -> str:
    if entry.kind is Kind.ROLLBACK:
        return f"klorosctl baseline rollback {entry.target} does the same"
    return f"to have it tried anew, remove its ack, {entry.stem}_ack.json"


def _close(
    db: Database, entry: Entry, event: Event, *, by: str, reason: str, at: datetime, version: int | None = None
) -> None:
    status = after(entry.status, event)
    closed = status is not None and db.run(
        "escrow.close", entry=entry.entry, status=status, at=to_text(at), by=by, reason=reason, version=version
    )
    if not closed:
        raise NotReviewable(f"escrow {entry.entry} waits no more", hint=f"klorosctl escrow show {entry.entry}")
    counters.count(db, "kloros_escrow_total", status=str(status))


def _differ(name: str, one: Version, other: Version) -> bool:
    return one.parameters.get(name) != other.parameters.get(name)


def _when(instant: datetime | None) -> str:
    return "" if instant is None else to_text(instant)


def _entries(rows: Iterable[Row]) -> list[Entry]:
    return [
        Entry(
            entry=cast(str, row["entry"]),
            kind=Kind(cast(str, row["kind"])),
            stem=cast(str, row["stem"]),
            promotion_id=cast(str, row["promotion_id"]),
            target=cast("int | None", row["target"]),
            against=cast("int | None", row["against"]),
            cycle=cast("int | None", row["cycle"]),
            rule=cast(str, row["rule"]),
            changes=cast("dict[str, Number | None]", json.loads(cast(str, row["changes"]))),
            before=cast("dict[str, Number | None]", json.loads(cast(str, row["before"]))),
            fitness=cast("float | None", row["fitness"]),
            evidence=json.loads(cast(str, row["evidence"])),
            emitted_by=cast(str, row["emitted_by"]),
            four_eyes=bool(row["four_eyes"]),
            created_at=from_text(cast(str, row["created_at"])),
            expires_at=from_text_or_none(cast("str | None", row["expires_at"])),
            status=Status(cast(str, row["status"])),
            reviewed_at=from_text_or_none(cast("str | None", row["reviewed_at"])),
            reviewed_by=cast("str | None", row["reviewed_by"]) or "",
            reason=cast(str, row["reason"]),
            version=cast("int | None", row["version"]),
        )
        for row in rows
    ]
