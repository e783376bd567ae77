"""The planner's archives: which is the newest, and whether its content was there before.

Touching, renaming or copying an old archive makes no new one. The default folder is the planner's of Logos
(`state/planner_digest_archives`, from its run-cycle scripts).
"""

from __future__ import annotations

import glob
import hashlib
import os
from typing import NamedTuple

_COMPARED = 50  # newest archives whose content is known; older ones have been new before
_CHUNK = 1 << 20


class _Found(NamedTuple):
    changed: int
    path: str
    identity: tuple[int, int, int, int]


class Archives:
    """The archives of one pattern. Content that was read once is not read again while its file is the same."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._digests: dict[tuple[int, int, int, int], str] = {}

    def known(self) -> tuple[str, ...]:
        """Return the SHA-256 of the newest archives there are, for `newest` later."""
        found = self._newest(_COMPARED)
        digests = {one.identity: self._digest(one) for one in found}
        self._digests = digests
        return tuple(filter(None, digests.values()))

    def newest(self, known: tuple[str, ...]) -> tuple[str | None, bool]:
        """Return the newest archive's path, and whether its content is none of those known."""
        for one in self._newest(_COMPARED):
            digest = self._digest(one)
            if digest:
                self._digests[one.identity] = digest
                return one.path, digest not in known
        return None, False

    def _newest(self, number: int) -> list[_Found]:
        if not self._pattern:
            return []
        found = []
        for path in glob.iglob(self._pattern, recursive=True):
            try:
                stat = os.stat(path)
            except OSError:
                continue
            if os.path.isfile(path):
                identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
                found.append(_Found(stat.st_mtime_ns, path, identity))
        return sorted(found, reverse=True)[:number]

    def _digest(self, one: _Found) -> str:
        """Return the SHA-256, or empty when the file has gone or may not be read."""
        if one.identity in self._digests:
            return self._digests[one.identity]
        digest = hashlib.sha256()
        try:
            with open(one.path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError:
            return ""
        return digest.hexdigest()
