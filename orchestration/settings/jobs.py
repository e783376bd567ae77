"""What runs, when, and for how long at most: PHASE, D-REAM, reflection, and the runner of all three."""

from __future__ import annotations

from datetime import time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from orchestration.host import zones
from orchestration.host.hostlist import expand
from orchestration.settings.fields import STEPS, Command, Duration, PositiveDuration, Section, WorkingDir


def _known_zone(name: str) -> str:
    zones.find(name)
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone; names are those of the IANA database") from None
    return name


class Domain(Section):
    """One command of the default PHASE job."""

    command: Annotated[Command, Field(min_length=1, examples=[["pytest", "-q"]])]
    """The program and its arguments, run without a shell."""
    timeout: Annotated[PositiveDuration, Field(examples=["10min"])] = timedelta(minutes=10)
    """Longest run; after it the whole process tree is ended and the domain has failed. Ten minutes fit six domains into
    the default PHASE deadline."""


class Needs(Section):
    """What a job asks for. With `executor = "slurm"` Slurm is told all of it, and what is empty or 0 is left to its
    defaults. Locally `hosts`, `cpus`, `memory` and `gpus` say which hosts may run it: a machine that has less in all is
    passed over, or, where there is no other, the cycle fails with that reason. Nothing is reserved or held down there."""

    partition: Annotated[str, Field(pattern=r"^[\w.,+-]*$", examples=["batch"])] = ""
    """Partition, or several with commas: that which starts it first. Slurm's only."""
    hosts: Annotated[str, Field(pattern=r"^[\w.,\[\]-]*$", examples=["node[1-4]"])] = ""
    """Hosts that it may run on, as Slurm writes lists of them, such as `lab-1,node[1-4]`; empty for any. Slurm's nodes, or
    by name the hosts that share a store (`database_url`): whose runner comes first, runs it."""
    cpus: Annotated[int, Field(ge=0, examples=[8])] = 0
    """Processors."""
    memory: Annotated[str, Field(pattern=r"^(\d+[KMGT]?)?$", examples=["16G"])] = ""
    """Memory of its node; a plain number counts MiB, as Slurm has it."""
    gpus: Annotated[int, Field(ge=0, examples=[1])] = 0
    """GPUs."""
    time: Annotated[Duration, Field(examples=["2h"])] = timedelta(0)
    """Longest run as Slurm sees it, in whole minutes; 0: the job's timeout, and the grace after it. Slurm's only."""
    options: Annotated[Command, Field(examples=[["--account=lab", "--qos=night"]])] = ()
    """Further options of sbatch(1), for what a site demands."""

    @field_validator("hosts")
    @classmethod
    def _hosts_are_a_list(cls, hosts: str) -> str:
        expand(hosts)
        return hosts


Executor = Literal["local", "slurm"]


class Phase(Section):
    """When PHASE runs, and what it runs."""

    window_opens: Annotated[time, Field(examples=["03:00"])] = time(3)
    """Local time at which the window opens. 03:00 is the hour KLoROS reserves for PHASE."""
    window_closes: Annotated[time, Field(examples=["07:00"])] = time(7)
    """Local time at which the window closes; earlier than `window_opens` means the next day."""
    time_zone: Annotated[str, AfterValidator(_known_zone), Field(examples=["America/New_York"])] = "America/New_York"
    """IANA name of the zone in which the two times are read; the only place where local time exists."""
    missed: Annotated[Literal["skip", "run_once"], Field(examples=["skip"])] = "skip"
    """What to do about a window that closed without a PHASE: record it as skipped, or also run it once, now."""
    command: Annotated[Command, Field(examples=[["python3", "-m", "src.phase.run_all_domains"]])] = ()
    """The program and its arguments; empty means our own, which runs `[phase.domains]`."""
    working_dir: WorkingDir = ""
    """Folder in which the command runs; empty means the cycle's own, which is the same however a tick was started."""
    timeout: Annotated[PositiveDuration, Field(examples=["1h"])] = timedelta(hours=1)
    """Longest run of a PHASE, in seconds or with a unit; after it the whole process tree is ended."""
    executor: Annotated[Executor, Field(examples=["slurm"])] = "local"
    """Who runs it: this host, or Slurm. For Slurm, `cycles_dir` and what the command reads and writes must lie where the
    nodes find them under the same paths; see docs/how-to/slurm.md."""
    needs: Needs = Needs()
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = STEPS
    """Waits after the first, second, … failed PHASE of a date; the last one repeats."""
    domains: Annotated[dict[str, Domain], Field(examples=["[phase.domains.unit]"])] = {}
    """Named commands of the default PHASE job, run in this order; none means `klorosctl doctor`."""

    @field_validator("window_closes")
    @classmethod
    def _window_has_hours(cls, closes: time, info: ValidationInfo) -> time:
        if info.data.get("window_opens") == closes:
            raise ValueError("window_opens and window_closes are the same: such a window has no hours")
        return closes


class Dream(Section):
    """What a D-REAM cycle runs, and how its promotions are judged."""

    command: Annotated[Command, Field(examples=[["python3", "-m", "src.dream.run"]])] = ()
    """The program and its arguments; empty means our own, which runs `trial` for each promotion."""
    working_dir: WorkingDir = ""
    """Folder in which the command runs; empty means the cycle's own, which is the same however a tick was started."""
    timeout: Annotated[PositiveDuration, Field(examples=["30min"])] = timedelta(minutes=30)
    """Longest run of a D-REAM cycle, in seconds or with a unit; after it the whole process tree is ended."""
    executor: Annotated[Executor, Field(examples=["slurm"])] = "local"
    """Who runs it: this host, or Slurm. For Slurm, `cycles_dir` and what the command reads and writes must lie where the
    nodes find them under the same paths; see docs/how-to/slurm.md."""
    needs: Needs = Needs()
    trial: Annotated[Command, Field(examples=[["python3", "/opt/app/trial.py"]])] = ()
    """Program that measures one set of parameters and prints its fitness; empty: promotions are judged by their own."""
    trial_runs: Annotated[int, Field(ge=1, le=1000, examples=[5])] = 5
    """Runs of the trial with each set of parameters; medians are compared. Five outvote two outliers."""
    accept_at: Annotated[float, Field(ge=0, examples=[0.02])] = 0.02
    """Relative gain over the baseline from which a promotion is accepted (0.02 is +2 %)."""
    reject_below: Annotated[float, Field(le=0, examples=[-0.05])] = -0.05
    """Relative gain below which a promotion is rejected as worse; between the two it is neutral and not accepted."""
    park_after: Annotated[int, Field(ge=1, examples=[5])] = 5
    """Failed cycles in a row after which a promotion is parked until a person retries or rejects it."""
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = STEPS
    """Waits after the first, second, … failed D-REAM cycle for promotions; the last one repeats."""


class Reflection(Section):
    """A look back while nothing runs and the host is idle: its job gets a digest of what is open. What the host can't
    measure holds nothing up."""

    interval: Annotated[Duration, Field(examples=["30min"])] = timedelta(minutes=30)
    """How long nothing must have run, and the least time between two reflections; 0 for none at all."""
    command: Annotated[Command, Field(examples=[["python3", "-m", "src.reflect"]])] = ()
    """The program and its arguments; empty means our own, which writes `artifacts/reflection.md` from the store."""
    working_dir: WorkingDir = ""
    """Folder in which the command runs; empty means the cycle's own, which is the same however a tick was started."""
    timeout: Annotated[PositiveDuration, Field(examples=["10min"])] = timedelta(minutes=10)
    """Longest run; after it the whole process tree is ended. None is asked for so short before a PHASE window opens."""
    max_pressure: Annotated[float, Field(ge=0, le=100, examples=[20])] = 20.0
    """Highest share of the last minute, in percent, in which something waited for CPU, memory or disks (PSI, `avg60`)."""
    max_load: Annotated[float, Field(ge=0, examples=[0.5])] = 0.5
    """Highest load of the last minute for each processor."""
    max_gpu: Annotated[float, Field(ge=0, le=100, examples=[20])] = 20.0
    """Highest utilisation of any GPU in percent, where `nvidia-smi` is there."""


class Cycles(Section):
    """How the cycle runner treats any job."""

    log_limit_bytes: Annotated[int, Field(ge=4096, examples=[67108864])] = 64 * 1024 * 1024
    """Bytes of a cycle's output that are kept; the rest is dropped and a marker says so. 64 MiB."""
    term_grace: Annotated[Duration, Field(examples=["10s"])] = timedelta(seconds=10)
    """Time between SIGTERM and SIGKILL to a process tree that must end."""
    bundle: Annotated[bool, Field(examples=[True])] = True
    """Whether a bundle of each finished cycle is made, in `bundles_dir`. It goes with its cycle, see `[retention]`."""


class Slurm(Section):
    """How Slurm's commands are used, by jobs with `executor = "slurm"`."""

    python: Annotated[str, Field(pattern=r"^(/.*)?$", examples=["/opt/kloros/bin/python"])] = ""
    """Python on the nodes that has this program; empty: where it lies on this host, which an installation in `/opt/kloros`
    on every node, or a shared one, makes true."""
    patience: Annotated[PositiveDuration, Field(le=timedelta(minutes=2), examples=["20s"])] = timedelta(seconds=20)
    """Longest time for one of Slurm's commands, at most 2 min; after it Slurm is out of reach, and the cycle waits."""
    lag: Annotated[Duration, Field(examples=["2min"])] = timedelta(minutes=2)
    """How long what a node has written may take to be seen here, and Slurm's controller to know its jobs after a restart;
    NFS keeps what it knows of a folder for up to a minute (nfs(5), acdirmax)."""
