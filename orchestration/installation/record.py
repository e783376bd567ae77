"""The records of rollouts, and where they are: what each path was before, and after."""

from __future__ import annotations

import glob
import json
import os
import re
from typing import Any, NamedTuple

from orchestration.installation import files

RECORD = "record.json"
_VERSION_ENTRY = re.compile(rb"/versions/([^/\s]+)/")


class Refused(Exception):
    """What was asked for is not done, and nothing has been changed. The second argument says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Rollout(NamedTuple):
    """One record."""

    folder: str
    content: dict[str, Any]

    @property
    def number(self) -> int:
        return int(os.path.basename(self.folder))

    @property
    def version(self) -> str:
        return str(self.content["version"])

    @property
    def previous(self) -> str:
        """The version that ran before; empty when there was none."""
        return str(self.content["previous"])

    @property
    def paths(self) -> dict[str, dict[str, Any]]:
        """For each path `before` and `after`, each a Look; the bytes of a file before are in the file `kept`."""
        found: dict[str, dict[str, Any]] = self.content["paths"]
        return found

    def save(self) -> None:
        """Write the record whole, and have it on disk."""
        text = json.dumps(self.content, indent=1, sort_keys=True) + "\n"
        files.write(os.path.join(self.folder, RECORD), text.encode(), 0o644)


class Place(NamedTuple):
    """Where an installation is."""

    base: str

    @property
    def rollouts(self) -> str:
        return os.path.join(self.base, "rollouts")

    def version(self, name: str) -> str:
        """Return the folder of a version."""
        return os.path.join(self.base, "versions", name)

    def records(self) -> list[Rollout]:
        """Return every rollout that has not been taken back, oldest first."""
        found = []
        for folder in sorted(glob.glob(os.path.join(glob.escape(self.rollouts), "[0-9]" * 4))):
            try:
                with open(os.path.join(folder, RECORD), encoding="utf-8") as file:
                    found.append(Rollout(folder, json.load(file)))
            except FileNotFoundError:
                continue  # killed before the record was written: nothing had been changed
            except ValueError as error:
                raise Refused(
                    f"{folder}/{RECORD} can't be read: {error}", "install.sh --uninstall goes without it"
                ) from error
        return found

    def refuse_half_removed(self) -> None:
        """Raise Refused where `install.sh --uninstall` was interrupted: of every version, some files are gone."""
        if any(rollout.content["undoing"] for rollout in self.records()[:-1]):
            raise Refused(f"an uninstallation of {self.base} was interrupted", "finish it: install.sh --uninstall")

    def running(self) -> str:
        """Return the version to which bin/python leads; empty for none."""
        try:
            with open(os.path.join(self.base, "bin", "python"), "rb") as file:
                found = _VERSION_ENTRY.search(file.read(65536))
        except OSError:
            return ""
        return found[1].decode() if found else ""
