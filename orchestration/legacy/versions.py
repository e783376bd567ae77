"""The older baseline and its archive as versions of ours: each gets its place in the chain, in their order.

The older manager kept the last ten versions, each with a manifest whose `sha256` is that of the YAML file; going back
copied an archived pair over the pair in force (HomoYouDidnt/kloros, src/kloros/orchestration/baseline_manager.py at
878cac6). So what is in force comes last here, once more where it is not the newest of the archive.
A file that does not have the SHA-256 that its manifest names was edited, or its commit was never finished: refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from orchestration.baseline import history
from orchestration.baseline.version import Kind as Made
from orchestration.baseline.version import Provenance, Version
from orchestration.errors import KlorosError, Malformed
from orchestration.legacy.item import Draft, Kind, Step, refused, taking, there
from orchestration.legacy.parameters import parse_parameters
from orchestration.legacy.tree import Found, Tree
from orchestration.promotions.promotion import checked_changes
from orchestration.tick.kernel import Kernel

_ARCHIVED = re.compile(r"baseline_v(\d+)\.(?:ya?ml|json)")
_IN_FORCE = ("baseline.yaml", "baseline.yml", "baseline.json")
_SIGN = "taken over: "


class _Older(NamedTuple):
    """One version as it lies there."""

    found: Found
    number: int | None  # None: nothing says
    manifest: dict[str, object]
    in_force: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.found.data).hexdigest()

    @property
    def name(self) -> str:
        return f"{self.found.name} (in force)" if self.in_force else self.found.name


def plan_versions(kernel: Kernel, tree: Tree) -> list[Step]:
    """Plan for every older version, oldest first, and for the one in force."""
    olders = list(_olders(tree.versions))
    if not olders:
        return []
    hindrance, present = _hindrance(kernel, tree.baseline), history.every(kernel.db)
    held = {version.provenance.reason for version in present}
    own = next((version for version in present if not _is_taken_over(version)), None)
    if own is not None:
        hindrance = f"the baseline here has versions of its own (version {own.version}: {own.provenance.reason})"
    return [_plan(kernel, older, held, hindrance) for older in olders]


def commit(kernel: Kernel, drafts: Iterable[Draft]) -> None:
    """Add versions to the chain, in order. Inside a transaction; `baseline.copies.bring_up` then writes the files."""
    from orchestration.baseline.version import following

    for draft in drafts:
        before = history.newest(kernel.db)
        made = following(before, draft.provenance, draft.parameters, promotions=draft.promotions)
        history.append(kernel.db, made)


def _is_taken_over(version: Version) -> bool:
    return version.provenance.kind is Made.IMPORTED and version.provenance.reason.startswith(_SIGN)


def _hindrance(kernel: Kernel, folder: str) -> str:
    """Say why no version can be taken over at all; empty when some can."""
    ours = kernel.path("baseline")
    if os.path.realpath(folder) == os.path.realpath(ours):
        return f"lies where ours is to be: move {ours} to another folder, and name that with --baseline"
    if history.newest(kernel.db) is None:
        try:
            if history.older(kernel.settings.state_dir) is not None:
                return f"{ours}/baseline.json is there: move it away, if the older baseline is to count"
        except KlorosError as error:
            return error.message
    return ""


def _olders(files: Iterable[Found]) -> Iterator[_Older]:
    by_name = {found.name: found for found in files}
    archived = {int(match[1]): found for found in by_name.values() if (match := _ARCHIVED.fullmatch(found.name))}
    newest = ""
    for number, found in sorted(archived.items()):
        manifest = _manifest(by_name.get(f"manifest_v{number:04d}.json"))
        older = _Older(found, number, manifest, in_force=False)
        newest = older.sha256
        yield older
    in_force = next((by_name[name] for name in _IN_FORCE if name in by_name), None)
    if in_force is not None:
        manifest = _manifest(by_name.get("manifest.json"))
        said = manifest.get("version")
        older = _Older(in_force, said if isinstance(said, int) else None, manifest, in_force=True)
        if older.sha256 != newest:
            yield older


def _manifest(found: Found | None) -> dict[str, object]:
    try:
        value = json.loads(found.data) if found is not None else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _plan(kernel: Kernel, older: _Older, held: set[str], hindrance: str) -> Step:
    reason = _reason(older)
    if older.found.fault:
        return refused(Kind.VERSION, older.name, older.found.fault)
    if reason in held:
        return there(Kind.VERSION, older.name)
    said = older.manifest.get("sha256", older.sha256)
    if said != older.sha256:
        fault = f"its SHA-256 is {older.sha256[:12]}, and its manifest says {str(said)[:12]}: edited, or half committed"
        return refused(Kind.VERSION, older.name, fault)
    if hindrance:
        return refused(Kind.VERSION, older.name, hindrance)
    try:
        read = parse_parameters(older.found.data)
    except Malformed as error:
        return refused(Kind.VERSION, older.name, error.message)
    if not read.numbers and read.left_out:
        return refused(Kind.VERSION, older.name, "none of its parameters is a number")
    details = [f"left out, for they are no numbers: {', '.join(read.left_out)}"] if read.left_out else []
    try:
        checked_changes(read.numbers, bounds=kernel.settings.promotions.bounds, strict=False)
    except ValueError as error:
        details.append(f"outside today's bounds: {error}")
    draft = Draft(read.numbers, _provenance(older, reason), _promotions(older))
    return taking(Kind.VERSION, older.name, draft, "; ".join(details))


def _reason(older: _Older) -> str:
    what = "an older baseline" if older.number is None else f"version {older.number} of the older baseline"
    return f"{_SIGN}{'in force, ' if older.in_force else ''}{what}, SHA-256 {older.sha256}"


def _provenance(older: _Older, reason: str) -> Provenance:
    said = older.manifest.get("ts")
    seconds = said if isinstance(said, int | float) and not isinstance(said, bool) else older.found.changed_at
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        at = datetime.fromtimestamp(max(older.found.changed_at, 0.0), UTC)
    return Provenance(at=at, actor=str(older.manifest.get("actor") or "unknown")[:200], kind=Made.IMPORTED, reason=reason)


def _promotions(older: _Older) -> tuple[str, ...]:
    said = older.manifest.get("promotion_ids")
    return tuple(str(one) for one in said) if isinstance(said, list) else ()
