"""From the stage to the host, on record: what install.sh has laid there in full is compared, kept account of, and put."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from orchestration.installation import files
from orchestration.installation.files import Look
from orchestration.installation.record import Place, Rollout
from orchestration.installation.units import Units


def apply(place: Place, stage: str, about: dict[str, Any]) -> Rollout | None:
    """Bring what is in the stage to the host, on record; None when all of it is there already.

    A rollout that was killed is gone on with: what was before it stays what was before.
    """
    place.refuse_half_removed()
    records = place.records()
    newest = records[-1] if records else None
    changes = {path: (found, files.look(path)) for path, found in _staged(stage)}
    changes = {path: (after, before) for path, (after, before) in changes.items() if after != before}
    if newest is not None and (newest.content["undoing"] or not newest.content["complete"]):
        rollout = newest
        # A copy that the newer version may have been at is none to go back to; nor is one made while going back waits.
        if place.running() == rollout.previous and "paused" not in rollout.content:
            rollout.content["backup"] = about["backup"] or rollout.content["backup"]
        rollout.content.update(version=about["version"], complete=False, undoing=False)
    elif changes:
        number = newest.number + 1 if newest else 1
        folder = os.path.join(place.rollouts, f"{number:04d}")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o755)
        start = {"paths": {}, "folders": [], "complete": False, "undoing": False, "previous": place.running()}
        rollout = Rollout(folder, {**about, **start, "at": _now()})
    else:
        return None
    for path, (after, before) in sorted(changes.items()):
        if path in rollout.paths:
            rollout.paths[path]["after"] = after
            continue
        kept = ""
        if "sha256" in before:
            kept = f"{len(rollout.paths):04d}"
            files.write(os.path.join(rollout.folder, kept), files.read(path), before["mode"])
        rollout.paths[path] = {"before": before, "after": after, "kept": kept}
        rollout.content["folders"] += [folder for folder in _absent_above(path) if folder not in rollout.content["folders"]]
    rollout.save()
    for path, (after, _) in changes.items():
        files.put(path, after, stage + path)
    return rollout


def finish(rollout: Rollout) -> None:
    """Mark a rollout as complete; what a rollback of it had stopped, before it was killed, goes on."""
    if stopped := rollout.content.get("paused"):
        Units(rollout.content["unit_folder"], rollout.content["kind"] == "user").systemctl("start", *stopped)
    rollout.content.pop("paused", None)
    rollout.content["complete"] = True
    rollout.save()


def created(rollout: Rollout, folder: str) -> list[str]:
    """Name the files in a folder that were not there before a rollout."""
    return [
        os.path.basename(path)
        for path, change in rollout.paths.items()
        if os.path.dirname(path) == folder and not change["before"]
    ]


def _staged(stage: str) -> Iterator[tuple[str, Look]]:
    for folder, folders, names in os.walk(stage):
        for name in [*names, *(one for one in folders if os.path.islink(os.path.join(folder, one)))]:
            path = os.path.join(folder, name)
            yield path[len(stage) :], files.look(path)


def _absent_above(path: str) -> list[str]:
    found, folder = [], os.path.dirname(path)
    while not os.path.lexists(folder):
        found.append(folder)
        folder = os.path.dirname(folder)
    return found


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
