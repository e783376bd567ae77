"""Where the loop works: every path of its settings, absolute, seen from the folder in which the command runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from orchestration.settings import Loop


class Place(NamedTuple):
    """The paths; "" for a file or pattern that the settings don't name."""

    cwd: str
    log_dir: str
    history_path: str
    stop_file: str
    goal_file: str
    archives: str


def place_of(settings: Loop) -> Place:
    """Return the paths of these settings."""
    cwd = settings.working_dir or os.getcwd()

    def absolute(path: str) -> str:
        return os.path.normpath(os.path.join(cwd, path)) if path else ""

    return Place(
        cwd,
        absolute(settings.log_dir),
        absolute(settings.history_path),
        absolute(settings.stop_file),
        absolute(settings.goal_file),
        absolute(settings.archives),
    )
