"""How long the logs of iterations stay: by the same rule as cycles, `[retention]`.

logrotate can't do it: the folder is the operator's, and each log is a file of its own. The output of
a cycle that is kept stays in the cycle's own folder.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from orchestration.settings import Retention

_LOG: Final = re.compile(r"(\d{8}T\d{6})(?:-(\d+))?\.log")
_EVERY: Final = 16  # iterations: the folder may have some 10,000 names, and listing them takes some milliseconds


def prune(folder: str, kept: Retention, *, iteration: int, now: datetime) -> None:
    """Every sixteenth iteration, remove the logs that neither number nor age keeps, a few at a time.

    What can't be removed is no reason to stop iterating.
    """
    if iteration % _EVERY:
        return
    with suppress(OSError):
        for name in _over(os.listdir(folder), kept, now)[: kept.per_tick * _EVERY]:
            os.unlink(os.path.join(folder, name))


def _over(names: list[str], kept: Retention, now: datetime) -> list[str]:
    """Return the names of logs that are to go, oldest first; the newest one never is."""
    logs = sorted((match[1], int(match[2] or 0), name) for name in names if (match := _LOG.fullmatch(name)))
    before = f"{(now - kept.keep_for).astimezone(UTC):%Y%m%dT%H%M%S}"
    return [name for started, _, name in logs[: -max(1, kept.keep_last)] if started < before]
