"""One version of the baseline: the accepted parameters, where they came from, and the hash of the version before.

Pure. A version is written as a small YAML file. Its SHA-256 is the version's name in the chain, and the file names that of
the version before. So a byte changed anywhere, in the parameters or in their origin, breaks the chain from there on.

The YAML is what every parser of YAML 1.1 and 1.2 reads alike: quoted names, and floats with a point even when they have an
exponent (`1.0e-05`: without the point it is a text in 1.1, https://yaml.org/type/float.html).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestration.store.instants import to_text

if TYPE_CHECKING:
    from orchestration.promotions.promotion import Number  # with pydantic, which takes 45 ms

FIRST = ""
"""What stands for the version before the first."""
_LONGEST_KEY = 1000  # characters; YAML allows 1024


class Kind(StrEnum):
    """What made a version."""

    CYCLE = "cycle"  # a D-REAM cycle's accepted promotions
    ESCROW = "escrow"  # a person approved what waited in escrow
    ROLLBACK = "rollback"  # the parameters of an earlier version, again
    IMPORTED = "imported"  # a baseline.json from before there were versions
    SET = "set"  # a person's


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Who made a version, when and why; `at` is aware UTC."""

    at: datetime
    actor: str
    kind: Kind
    reason: str
    cycle: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version; hashes are hexadecimal SHA-256."""

    version: int  # from 1
    sha256: str
    previous_sha: str  # FIRST for version 1
    provenance: Provenance
    promotions: tuple[str, ...]  # stems of those it added
    parameters: Mapping[str, Number]
    fitness: float | None  # of the fittest promotion it added; None when nothing was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one parameter is in two versions; None where it is absent."""

    name: str
    before: Number | None
    after: Number | None

    @property
    def relative(self) -> float | None:
        """The change as a fraction of the size of the value before; None where there is none, or it was 0."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return (self.after - self.before) / abs(self.before)


def following(
    before: Version | None,
    provenance: Provenance,
    parameters: Mapping[str, Number],
    *,
    promotions: Sequence[str] = (),
    fitness: float | None = None,
) -> Version:
    """Make the version that follows `before` (None: the first)."""
    draft = Version(
        version=1 if before is None else before.version + 1,
        sha256="",
        previous_sha=FIRST if before is None else before.sha256,
        provenance=provenance,
        promotions=tuple(promotions),
        parameters=dict(sorted(parameters.items())),
        fitness=fitness,
    )
    return replace(draft, sha256=hashlib.sha256(content(draft)).hexdigest())


def content(version: Version) -> bytes:
    """Write the version's file; it does not hold its own hash."""
    lines = ["# The accepted parameters. Changed by klorosctl baseline, not by hand: klorosctl baseline verify finds it."]
    lines += [f"# {name}: {json.dumps(value)}" for name, value in origin(version).items()]
    lines += [_entry(_quoted(name), _number(value)) for name, value in version.parameters.items()]
    if not version.parameters:
        lines.append("{}")
    return "".join(f"{line}\n" for line in lines).encode()


def manifest(version: Version) -> bytes:
    """Write `manifest.json`: which version is in force, and where it came from."""
    return json.dumps({"schema": "v1", "sha256": version.sha256, **origin(version)}, indent=2).encode() + b"\n"


def origin(version: Version) -> dict[str, object]:
    """Return what is told of a version besides its parameters and its hash, as JSON has it."""
    made = version.provenance
    return {
        "version": version.version,
        "previous_sha": version.previous_sha,
        "ts": to_text(made.at),
        "actor": made.actor,
        "kind": str(made.kind),
        "reason": made.reason,
        "cycle": made.cycle,
        "promotion_ids": list(version.promotions),
        "fitness": version.fitness,
    }


def changes(before: Mapping[str, Number], after: Mapping[str, Number]) -> tuple[Change, ...]:
    """Return the parameters that differ, by name."""
    names = sorted(before.keys() | after.keys())
    found = (Change(name=name, before=before.get(name), after=after.get(name)) for name in names)
    return tuple(change for change in found if change.before != change.after)


def difference(change: Change) -> dict[str, object]:
    """Write one change, for JSON."""
    return {"name": change.name, "before": change.before, "after": change.after, "relative": change.relative}


def set_by(now: Version, then: Version) -> dict[str, Number]:
    """Return the values that putting `then` in force in place of `now` would set; what it removes is not among them."""
    found = changes(now.parameters, then.parameters)
    return {change.name: change.after for change in found if change.after is not None}


def is_whole(version: Version) -> bool:
    """Tell whether a version is as it was committed: its content has its hash."""
    return hashlib.sha256(content(version)).hexdigest() == version.sha256


def broken_links(versions: Iterable[Version]) -> list[str]:
    """Say where a chain of versions, oldest first, does not hold; empty when it does."""
    faults, before = [], None
    for version in versions:
        number, sha = (1, FIRST) if before is None else (before.version + 1, before.sha256)
        if version.version != number:
            faults.append(f"version {number} is missing: version {version.version} follows")
        elif version.previous_sha != sha:
            faults.append(f"version {version.version} follows {version.previous_sha[:12] or 'nothing'}, not {sha[:12]}")
        if not is_whole(version):
            faults.append(f"version {version.version} was changed in the store: its hash is not {version.sha256[:12]}")
        before = version
    return faults


def _entry(name: str, value: str) -> str:
    """Write one parameter; a name too long for a key in one line is an explicit key (https://yaml.org/spec/1.2.2, 8.2.2)."""
    return f"{name}: {value}" if len(name) <= _LONGEST_KEY else f"? {name}\n: {value}"


def _quoted(name: str) -> str:
    """Write a double-quoted YAML text in ASCII; JSON's escapes would give two halves of a character beyond U+FFFF."""
    return '"' + "".join(one if " " <= one <= "~" and one not in '"\\' else f"\\U{ord(one):08x}" for one in name) + '"'


def _number(value: Number) -> str:
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa}.0e{power}" if exponent and "." not in mantissa else text
