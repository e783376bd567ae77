"""A Job: what a cycle of it runs, taken from the settings."""

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, assert_never

from orchestration.cycles.cycle import Executor, JobName

if TYPE_CHECKING:
    from orchestration.settings import Dream, Phase, Reflection, Settings

_DEFAULT_MODULES = {
    JobName.PHASE: "orchestration.phase.domains",
    JobName.DREAM: "orchestration.promotions.trial",
    JobName.REFLECTION: "orchestration.reflection.review",
}


class Job(NamedTuple):
    """A command without a shell, where it runs ("" for the cycle's own folder), and the time it may take."""

    name: JobName
    command: tuple[str, ...]
    working_dir: str
    timeout: timedelta
    executor: Executor = Executor.LOCAL
    hosts: tuple[str, ...] = ()  # which may run it, where several share a store; none: any


def job(name: JobName, settings: "Settings") -> Job:
    """Return the job of this name; an empty command in the settings means our own program for it."""
    executor, hosts = Executor.LOCAL, ""
    match name:
        case JobName.PHASE:
            section: Phase | Dream | Reflection = settings.phase
            executor, hosts = Executor(settings.phase.executor), settings.phase.needs.hosts
        case JobName.DREAM:
            section = settings.dream
            executor, hosts = Executor(settings.dream.executor), settings.dream.needs.hosts
        case JobName.REFLECTION:
            section = settings.reflection
        case JobName.LOOP:
            raise ValueError("the loop makes its job for each iteration anew: the goal changes")
        case JobName.WAKE:
            raise ValueError("a turn's command is its runtime's")
        case _:
            assert_never(name)
    command = section.command or (sys.executable, "-m", _DEFAULT_MODULES[name])
    may = _hosts(hosts) if hosts and executor is Executor.LOCAL else ()  # Slurm is told of its nodes when it gets the job
    return Job(name, command, section.working_dir, section.timeout, executor, may)


def _hosts(text: str) -> tuple[str, ...]:
    from orchestration.host.hostlist import expand

    return expand(text)
