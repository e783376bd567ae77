"""A Job: what a cycle of it runs, taken from the settings."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, assert_never

from orchestration.cycles.cycle import JobName

if TYPE_CHECKING:
    from orchestration.settings import Settings

_DEFAULT_MODULES = {JobName.PHASE: "orchestration.phase.domains", JobName.DREAM: "orchestration.promotions.trial"}


class Job(NamedTuple):
    """A command without a shell, and the time it may take."""

    name: JobName
    command: tuple[str, ...]
    timeout: timedelta


def job(name: JobName, settings: Settings) -> Job:
    """Return the job of this name; an empty command in the settings means our own program for it."""
    match name:
        case JobName.PHASE:
            command, timeout = settings.phase.command, settings.phase.timeout
        case JobName.DREAM:
            command, timeout = settings.dream.command, settings.dream.timeout
        case _:
            assert_never(name)
    return Job(name, command or (sys.executable, "-m", _DEFAULT_MODULES[name]), timeout)
