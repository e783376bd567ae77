"""Reads what the emitter of an intent gave as its reason, and who it was, from the file that is kept of it.

The store remembers what became of an intent; why somebody wanted it stands only in the file. Whoever wrote that may have
written anything: it is opened as the inbox opens it, and counts only while its content is what was decided on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from orchestration.intents.document import SIZE_LIMIT
from orchestration.intents.intent import Status
from orchestration.intents.reading import read

LONGEST_REASON: Final = 2000
_LONGEST_NAME: Final = 200
_NAMESAKES: Final = 4  # NAME.1 and so on: earlier intents had that name
_LISTED_BYTES: Final = 8 << 20  # of all the files that one list reads
_NOW: Final = datetime(1970, 1, 1, tzinfo=UTC)  # only the inbox needs to know whether a file is still being written


class Asked(NamedTuple):
    """What stands in an intent's file; empty where it is gone or nothing was given."""

    reason: str = ""
    emitted_by: str = ""


class Reader:
    """Reads the files of some intents, and of all of them together no more than fits one page."""

    def __init__(self, intents_dir: str) -> None:
        """Args: intents_dir: the inbox, with `processed/<status>/` in it."""
        self._intents_dir = intents_dir
        self._left = _LISTED_BYTES

    def of(self, name: str, content_sha: str, status: str) -> Asked:
        """Return what this intent's file says; never raises, whatever lies there."""
        if not name or "\0" in name or os.path.basename(name) != name:
            return Asked()
        for folder, entry in self._places(name, status):
            try:
                size = os.lstat(os.path.join(folder, entry)).st_size
                if size > min(self._left, SIZE_LIMIT):
                    continue
                self._left -= size
                found = read(folder, entry, _NOW)
            except (OSError, ValueError):
                continue
            if found is not None and found.intent is not None and found.content_sha == content_sha:
                return Asked(_cut(found.intent.reason, LONGEST_REASON), _cut(found.intent.emitted_by, _LONGEST_NAME))
        return Asked()

    def _places(self, name: str, status: str) -> Iterator[tuple[str, str]]:
        """Give where it may lie: filed under its status, or, until that is done, where it was dropped."""
        if status in tuple(Status) and status != Status.PENDING:
            folder = os.path.join(self._intents_dir, "processed", status)
            yield folder, name
            yield from ((folder, f"{name}.{number}") for number in range(1, _NAMESAKES + 1))
        yield self._intents_dir, name


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]} …"
