"""The baseline as files, for other programs and for people: copies of the store that can always be made again.

    baseline/versions/baseline_v0042.yaml     the newest versions, never changed; older files go by [retention] keep_versions
    baseline/baseline.yaml, manifest.json, baseline.json
                                              links into `current`: the version in force, as YAML and as commands read it
    baseline/current -> .v0042/               one rename of this link puts a new version in force

So at every instant the three files are of one version, however a writer was killed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestration.baseline import agreement, history
from orchestration.baseline.version import Version, content, is_whole, manifest
from orchestration.host import files
from orchestration.promotions.baseline import Baseline, BaselineInvalid, to_bytes
from orchestration.store.port import Database

_CURRENT = "current"
_NAMES = ("baseline.yaml", "manifest.json", "baseline.json")
_FILE = re.compile(r"baseline_v(\d{4,})\.yaml")


def bring_up(db: Database, folder: str) -> list[Version]:
    """Write what the store has and the files have not; return those versions, oldest first.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    missing = history.unwritten(db)
    if not missing:
        return []
    versions = os.path.join(folder, "versions")
    files.make_folder(versions)
    files.sweep(versions, os.listdir(versions))
    for version in missing:
        files.replace(_path(folder, version), content(version), agreement.MODE)
    _put_in_force(folder, missing[-1])
    with db.transaction():
        for version in missing:
            db.run("baseline.written", version=version.version)
    return missing


def verify(db: Database, folder: str) -> list[str]:
    """Say which files are not as they were committed: each version's, those in force. Empty when all are.

    The chain itself is `version.broken_links`.
    A file that retention let go may be absent; one that lies there all the same must be right. A version that was changed in
    the store itself does not say any more what its files should be; then their hash does.
    """
    versions, retired = history.every(db), history.retired(db)
    faults: list[str] = []
    for version in versions:
        path = _path(folder, version)
        if version.version not in retired or os.path.lexists(path):
            faults += _faults(version, {path: content(version)})
    faults += [f"{path} is of no version that the store has" for path in _strays(folder, versions)]
    if versions:
        faults += _faults(versions[-1], _in_force_at(folder, versions[-1]))
    return faults


def _faults(version: Version, wanted: Mapping[str, bytes]) -> list[str]:
    if is_whole(version):
        return agreement.faults(wanted)
    known = [path for path in wanted if path.endswith(".yaml")]  # those whose hash is the version's
    return [f"{path} is not version {version.version} as it was committed" for path in known if _sha(path) != version.sha256]


def check_in_force(db: Database, folder: str) -> None:
    """Check that commands are given the baseline that was committed.

    Raises:
        BaselineInvalid: a file of the version in force was edited or is gone, or the version was changed in the store.
    """
    version = history.newest(db)
    if version is None:
        return
    if not is_whole(version):
        hint = "klorosctl baseline verify; then restore a backup of kloros.db"
        raise BaselineInvalid(f"version {version.version} was changed in the store", hint=hint)
    faults = agreement.faults(_in_force_at(folder, version))
    if faults:
        raise BaselineInvalid("; ".join(faults), hint="klorosctl baseline verify --repair writes it again")


def restore(db: Database, folder: str) -> list[str]:
    """Write every file again that is not as the store has it; what was edited is put aside as `.edited`. Return their paths.

    A file that retention let go, or of a version that was changed in the store, is not written again.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    versions, retired = history.every(db), history.retired(db)
    place = os.path.join(folder, "versions")
    files.make_folder(place)
    files.sweep(place, os.listdir(place))
    whole = [version for version in versions if is_whole(version)]
    kept = {_path(folder, version): content(version) for version in whole if version.version not in retired}
    gone = {_path(folder, version): content(version) for version in whole if version.version in retired}
    unwanted = agreement.differing({path: data for path, data in gone.items() if os.path.lexists(path)})
    unwanted += _strays(folder, versions)
    agreement.put_aside(unwanted)
    mended = sorted([*unwanted, *agreement.mend(kept)])
    if versions and is_whole(versions[-1]):
        edited = agreement.differing(_in_force_at(folder, versions[-1]))
        agreement.put_aside(edited)
        if edited:
            _put_in_force(folder, versions[-1])
        mended += edited
    return mended


def retirable(db: Database, folder: str, *, keep: int) -> list[str]:
    """List the files of all but the newest `keep` versions, oldest first; an edited one is none, `verify` tells of it."""
    present = _present(os.path.join(folder, "versions"))
    if len(present) <= keep:
        return []
    beyond = history.beyond(db, keep)
    return [path for number, path in sorted(present.items()) if number in beyond and _sha(path) == beyond[number]]


def retire(db: Database, folder: str, *, keep: int, at: datetime, limit: int) -> list[str]:
    """Let go of up to `limit` of these files: return them, to be removed. The store keeps every version.

    That they go is noted first, so that however removing them was interrupted, nobody takes one that is absent for lost.
    """
    paths = retirable(db, folder, keep=keep)[:limit]
    if paths:
        with db.transaction():
            history.retire(db, keep, at=at)
    return paths


def in_force(version: Version) -> Mapping[str, bytes]:
    """Return the files of the version in force: name → content."""
    made = version.provenance
    document = Baseline(
        parameters=dict(version.parameters),
        fitness=0.0 if version.fitness is None else version.fitness,
        cycle=made.cycle or 0,
        promotions=version.promotions,
        ts=int(made.at.timestamp()),
    )
    return dict(zip(_NAMES, (content(version), manifest(version), to_bytes(document)), strict=True))


def _put_in_force(folder: str, version: Version) -> None:
    own = f".v{version.version:04}"
    place = os.path.join(folder, own)
    files.make_folder(place)
    files.sweep(place, os.listdir(place))
    for name, data in in_force(version).items():
        files.replace(os.path.join(place, name), data, agreement.MODE)
    files.link(os.path.join(folder, _CURRENT), own)
    for name in _NAMES:
        files.link(os.path.join(folder, name), os.path.join(_CURRENT, name))
    for name in os.listdir(folder):
        if name.startswith(".v") and name != own:
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _present(folder: str) -> dict[int, str]:
    """Return the files of versions that there are: number → path."""
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    found = ((name, _FILE.fullmatch(name)) for name in names)
    return {int(match[1]): os.path.join(folder, name) for name, match in found if match}


def _sha(path: str) -> str | None:
    """Return the hash of a file's content; None when it can't be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _strays(folder: str, versions: Sequence[Version]) -> list[str]:
    """Return the files of versions that the store does not have: it was set back to a copy from before them."""
    newest = versions[-1].version if versions else 0
    present = _present(os.path.join(folder, "versions"))
    return [path for number, path in sorted(present.items()) if not 1 <= number <= newest]


def _in_force_at(folder: str, version: Version) -> dict[str, bytes]:
    return {os.path.join(folder, name): data for name, data in in_force(version).items()}


def _path(folder: str, version: Version) -> str:
    return os.path.join(folder, "versions", f"baseline_v{version.version:04}.yaml")
