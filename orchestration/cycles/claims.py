"""Which host may run a queued cycle, what keeps this one from it, and why nobody has taken it yet.

A cycle names its hosts (`[phase.needs] hosts`), or any may have it; which of them it is, is decided by who claims it first.
A host whose machine is too small for a job's needs never claims it where there are others; alone it claims, and the cycle
fails with that reason, for it would wait for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.cycles.cycle import Cycle, CycleState, Executor, JobName
from orchestration.store import opening

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestration.settings import Needs, Settings
    from orchestration.store.port import Database

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def here(settings: Settings) -> str:
    """Return this host's name in its scope; empty when it is alone."""
    return opening.place_of(settings).here


def is_ours(cycle: Cycle, host: str) -> bool:
    """Tell whether a cycle is run by this host, or may be: what its runner and its locks tell of."""
    if cycle.executor is not Executor.LOCAL:
        return False
    if cycle.state is CycleState.QUEUED:
        return not host or not cycle.hosts or host in cycle.hosts
    return cycle.host == host


def is_waiting(cycles: Iterable[Cycle], settings: Settings) -> bool:
    """Tell whether one of these waits for a runner of this host."""
    host = here(settings)
    return any(
        cycle.state is CycleState.QUEUED and is_ours(cycle, host) and not (host and unmet(cycle.job, settings))
        for cycle in cycles
    )


def unmet(job: JobName, settings: Settings) -> str:
    """Say what this host lacks for a job; empty when it has all that is needed."""
    needs = _needs(job, settings)
    if needs is None or not (needs.cpus or needs.memory or needs.gpus):
        return ""
    from orchestration.host import capacity

    has = capacity.of_this_host()
    wanted = _bytes(needs.memory)
    lacks = [
        f"{needs.cpus} processors, it has {has.cpus}" if needs.cpus > has.cpus else "",
        f"{needs.memory} of memory, it has {has.memory >> 20}M" if wanted > has.memory else "",
        f"{needs.gpus} GPUs, it has {has.gpus}" if needs.gpus > has.gpus else "",
    ]
    told = "; ".join(filter(None, lacks))
    return f"[{job}.needs] asks for {told}" if told else ""


def unable(settings: Settings) -> list[JobName]:
    """Return the jobs that this host must leave to others: none when it is alone."""
    return [job for job in (JobName.PHASE, JobName.DREAM) if unmet(job, settings)] if here(settings) else []


def why_queued(db: Database, cycle: Cycle, settings: Settings) -> str:
    """Say for whom a queued cycle waits, where several hosts could take it, and when these ticked last; else nothing."""
    host = here(settings)
    if not host or cycle.state is not CycleState.QUEUED or cycle.executor is not Executor.LOCAL:
        return ""
    ticked = {str(row["host"]): str(row["last_tick_at"] or "") for row in db.rows("cycles.hosts_ticked")}
    names = cycle.hosts or tuple(ticked)
    came = {name: at for name in names if (at := ticked.get(name, ""))}
    whom = f"queued for {_hosts(cycle.hosts)}" if cycle.hosts else "queued for any host"
    if not came:
        said = "none of them has ever ticked" if len(names) > 1 else "it has never ticked"
    else:
        since = [f"{name} ticked last {at[:19].replace('T', ' ')}Z" for name, at in came.items()]
        late = [name for name, at in came.items() if at > _instant(cycle)]
        said = ", ".join(since) if late else f"none has ticked since it was queued: {', '.join(since)}"
    own = unmet(cycle.job, settings) if is_ours(cycle, host) else ""
    return "; ".join(filter(None, (whom, said, f"not {host}: {own}" if own else "")))


def _needs(job: JobName, settings: Settings) -> Needs | None:
    return settings.phase.needs if job is JobName.PHASE else settings.dream.needs if job is JobName.DREAM else None


def _bytes(memory: str) -> int:
    """Read an amount of memory as Slurm has it: MiB without a unit."""
    if not memory:
        return 0
    return int(memory) << 20 if memory.isdigit() else int(memory[:-1]) * _UNITS[memory[-1]]


def _instant(cycle: Cycle) -> str:
    from orchestration.store.instants import to_text

    return to_text(cycle.queued_at)


def _hosts(names: tuple[str, ...]) -> str:
    return f"host {names[0]}" if len(names) == 1 else f"the hosts {', '.join(names)}"
