"""Escrow: which accepted changes wait for a person, what becomes of them, and how an entry is written down.

    pending_review ──approve──► approved          pending_review ──reject──► rejected
    pending_review ──expire───► expired           the three are final

Pure. A rule names a parameter, a size of change, an emitter, or several of them; then all must hold, parameter and size of
one and the same change. What changes nothing needs nobody's review.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple

from orchestration.baseline.version import Change, changes, difference
from orchestration.promotions.judgement import relative_gain
from orchestration.promotions.promotion import Number
from orchestration.store.instants import to_text

SCHEMA = "escrow.entry/v1"
_PREFIX, _SUFFIX = "escrow-", ".json"
_LARGEST_SHOWN = 10_000  # times; a larger change is one from near zero, and its digits mean nothing


class Status(StrEnum):
    """Where an entry stands; the value is what the store and the file hold."""

    PENDING = "pending_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


class Event(StrEnum):
    """What can happen to an entry."""

    APPROVE = "approve"
    REJECT = "reject"
    EXPIRE = "expire"


TRANSITIONS = MappingProxyType(
    {
        (Status.PENDING, Event.APPROVE): Status.APPROVED,
        (Status.PENDING, Event.REJECT): Status.REJECTED,
        (Status.PENDING, Event.EXPIRE): Status.EXPIRED,
    }
)


def after(status: Status, event: Event) -> Status | None:
    """Return the status that follows, or None when the event means nothing in this one."""
    return TRANSITIONS.get((status, event))


class Kind(StrEnum):
    """What approving an entry does."""

    PROMOTION = "promotion"  # takes an accepted promotion into the baseline
    ROLLBACK = "rollback"  # puts the parameters of an earlier version in force again


class Rule(NamedTuple):
    """One rule of `[escrow] require`; None and "" leave a field open, and at least one is given."""

    parameter: str = ""  # name, or a pattern of fnmatch(3)
    change_over: float | None = None  # fraction, ≥ 0: larger changes either way match, and any from nothing or from 0
    actor: str = ""  # OS user who owned the promotion's file

    def __str__(self) -> str:
        """Write it as it stands in the settings."""
        given = {"parameter": self.parameter, "change_over": self.change_over, "actor": self.actor}
        fields = (f"{name} = {json.dumps(value)}" for name, value in given.items() if value not in (None, ""))
        return f"{{{', '.join(fields)}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change that waits, or waited, for a person; instants are aware UTC."""

    entry: str  # 12 hexadecimal digits
    kind: Kind
    stem: str = ""  # of a promotion
    promotion_id: str = ""  # of a promotion
    target: int | None = None  # of a rollback: the version to go back to
    against: int | None = None  # the version in force when it was held; None before the first
    cycle: int | None = None
    rule: str  # what sent it here, in words
    changes: Mapping[str, Number | None]  # the values asked for; None to remove the parameter
    before: Mapping[str, Number | None]  # the baseline's values then; None where it had none
    fitness: float | None = None
    evidence: Mapping[str, object]  # JSON
    emitted_by: str = ""  # OS user; "" when unknown, or when no person emitted it
    four_eyes: bool = False  # it was held under [escrow] four_eyes
    created_at: datetime
    expires_at: datetime | None = None  # None: never
    status: Status = Status.PENDING
    reviewed_at: datetime | None = None
    reviewed_by: str = ""
    reason: str = ""  # the reviewer's
    version: int | None = None  # the baseline version that its approval made

    @property
    def diff(self) -> tuple[Change, ...]:
        """What it changes, seen from the baseline it was held against."""
        return changes(_there(self.before), _there(self.changes))

    @property
    def subject(self) -> str:
        """Name what waits, for people."""
        return f"promotion {self.stem}" if self.kind is Kind.PROMOTION else f"rollback to version {self.target}"


class Reviewer(NamedTuple):
    """Who decides on an entry."""

    name: str  # as recorded: `ada (sudo, as root)`
    identities: frozenset[str]  # every OS user who stands behind it


def entry_id(token: str, subject: str) -> str:
    """Return the id of an entry, the same however often it is worked out.

    Args:
        token: of the cycle, 32 hex digits of chance; for a rollback the SHA-256 of the version it turns away from.
        subject: the promotion's stem, or what is to be done.
    """
    return hashlib.sha256(f"{token}\0{subject}".encode("utf-8", "surrogateescape")).hexdigest()[:12]


def file_name(entry: str) -> str:
    """Return the name of an entry's file."""
    return f"{_PREFIX}{entry}{_SUFFIX}"


def bare_id(given: str) -> str:
    """Return the id that somebody means who may have written the file's name."""
    return given.rpartition("/")[2].removesuffix(_SUFFIX).removeprefix(_PREFIX).lower()


def required(
    rules: Iterable[Rule], asked: Mapping[str, Number], baseline: Mapping[str, Number], emitted_by: str
) -> str | None:
    """Say in words which rule sends a change before a person, the first of them; None when none does.

    Args:
        asked: parameter → value asked for. baseline: today's.
        emitted_by: the OS user; "" when unknown, and then it may be anybody that a rule names.
    """
    changed = changes({name: baseline[name] for name in asked if name in baseline}, asked)
    for rule in rules:
        if rule.actor and emitted_by not in ("", rule.actor):
            continue
        touched = [_told(change) for change in changed if _matches(rule, change)]
        if touched:
            by = f" by {emitted_by or 'nobody knows whom'}" if rule.actor else ""
            return f"{', '.join(touched)}{by}: {rule}"
    return None


def same_eyes(entry: Entry, reviewer: Reviewer, *, four_eyes: bool) -> str | None:
    """Say why this person can't approve this entry; None when they can.

    `four_eyes` is today's setting; an entry that was held under it keeps to it.
    """
    if entry.kind is not Kind.PROMOTION or not (four_eyes or entry.four_eyes):
        return None
    if not entry.emitted_by:
        return f"nobody knows who emitted {entry.subject}, so nobody can be told to be another"
    if entry.emitted_by in reviewer.identities:
        return f"{entry.emitted_by} emitted {entry.subject}, and nobody approves what they emitted"
    return None


def document(entry: Entry) -> dict[str, object]:
    """Write an entry as `escrow.entry/v1`, for JSON."""
    promotion = {
        "stem": entry.stem,
        "id": entry.promotion_id,
        "fitness": entry.fitness,
        "changes": dict(entry.changes),
        "emitted_by": entry.emitted_by or None,
    }
    return {
        "schema": SCHEMA,
        "entry": entry.entry,
        "kind": str(entry.kind),
        "promotion": promotion if entry.kind is Kind.PROMOTION else None,
        "target": entry.target,
        "rule": entry.rule,
        "against": entry.against,
        "diff": [difference(change) for change in entry.diff],
        "cycle": entry.cycle,
        "evidence": dict(entry.evidence),
        "four_eyes": entry.four_eyes,
        "status": str(entry.status),
        "created_at": to_text(entry.created_at),
        "expires_at": None if entry.expires_at is None else to_text(entry.expires_at),
        "reviewed_at": None if entry.reviewed_at is None else to_text(entry.reviewed_at),
        "reviewed_by": entry.reviewed_by or None,
        "reason": entry.reason,
        "version": entry.version,
    }


def to_bytes(entry: Entry) -> bytes:
    """Write an entry's file."""
    return json.dumps(document(entry), indent=2).encode() + b"\n"


def _there(values: Mapping[str, Number | None]) -> dict[str, Number]:
    return {name: value for name, value in values.items() if value is not None}


def _matches(rule: Rule, change: Change) -> bool:
    if rule.parameter and not fnmatchcase(change.name, rule.parameter):
        return False
    if rule.change_over is None:
        return True
    gain = _gain(change)
    return isinstance(gain, float) or abs(gain) > Fraction(repr(float(rule.change_over)))


def _gain(change: Change) -> Fraction | float:
    """Return the relative change, exactly; a float, and infinite, from nothing or from 0."""
    if change.before is None or change.after is None:
        return math.inf
    return relative_gain(change.before, change.after)


def _told(change: Change) -> str:
    gain = _gain(change)
    size = f", {float(gain) * 100:+.6g} %" if isinstance(gain, Fraction) and abs(gain) < _LARGEST_SHOWN else ""
    return f"{change.name} {'new' if change.before is None else change.before} → {change.after}{size}"
