"""Every setting: one frozen model, read from TOML under `KLR_*` variables.

A variable beats the file, the file beats the default. A field's docstring is its page in docs/reference/settings.md.
Quiet ticks never import this module: `configuration.py` gives them the same tree from a snapshot.
"""

from __future__ import annotations

import difflib
import re
from datetime import time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from orchestration.host import zones

_SYSTEM_STATE_DIR = "/var/lib/kloros"
_COLLECTED = "/var/lib/prometheus/node-exporter/kloros.prom"  # where Debian's node_exporter reads, of the host's one state
_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_SAFE_URL = re.compile(r"https://[^\s/]+\S*|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/\S*)?")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def _duration(value: object) -> object:
    """Read `90`, `"90"`, `"15min"` or `"1h 30min"` (units of systemd.time(7)); leave the rest to pydantic."""
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or a text such as 15min")
    if isinstance(value, int | float):
        return timedelta(seconds=value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return timedelta(seconds=float(text))
    parts = _SPAN.findall(text)
    if not parts or _SPAN.sub("", text) or any(unit not in _UNITS for _, unit in parts):
        raise ValueError("a duration is a number of seconds or a text such as 15min, 1h 30min or 2d")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def _known_zone(name: str) -> str:
    zones.find(name)
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone; names are those of the IANA database") from None
    return name


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta(0))]
PositiveDuration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))]
Command = tuple[str, ...]
AbsolutePath = Annotated[str, Field(pattern=r"^/")]
WorkingDir = Annotated[str, Field(pattern=r"^(/.*)?$", examples=["/opt/app"])]
Bounds = tuple[float, float]

_STEPS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(minutes=30))


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class Domain(_Section):
    """One command of the default PHASE job."""

    command: Annotated[Command, Field(min_length=1, examples=[["pytest", "-q"]])]
    """The program and its arguments, run without a shell."""
    timeout: Annotated[PositiveDuration, Field(examples=["10min"])] = timedelta(minutes=10)
    """Longest run; after it the whole process tree is ended and the domain has failed. Ten minutes fit six domains into
    the default PHASE deadline."""


class Needs(_Section):
    """What a job asks of Slurm, with `executor = "slurm"`; what is empty or 0 is left to Slurm's own defaults."""

    partition: Annotated[str, Field(pattern=r"^[\w.,+-]*$", examples=["batch"])] = ""
    """Partition, or several with commas: that which starts it first."""
    hosts: Annotated[str, Field(pattern=r"^[\w.,\[\]-]*$", examples=["node[1-4]"])] = ""
    """Nodes that it may run on, as Slurm writes lists of them; empty for any."""
    cpus: Annotated[int, Field(ge=0, examples=[8])] = 0
    """Processors."""
    memory: Annotated[str, Field(pattern=r"^(\d+[KMGT]?)?$", examples=["16G"])] = ""
    """Memory of its node; a plain number counts MiB, as Slurm has it."""
    gpus: Annotated[int, Field(ge=0, examples=[1])] = 0
    """GPUs."""
    time: Annotated[Duration, Field(examples=["2h"])] = timedelta(0)
    """Longest run as Slurm sees it, in whole minutes; 0: the job's timeout, and the grace after it."""
    options: Annotated[Command, Field(examples=[["--account=lab", "--qos=night"]])] = ()
    """Further options of sbatch(1), for what a site demands."""


Executor = Literal["local", "slurm"]


class Phase(_Section):
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
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = _STEPS
    """Waits after the first, second, … failed PHASE of a date; the last one repeats."""
    domains: Annotated[dict[str, Domain], Field(examples=["[phase.domains.unit]"])] = {}
    """Named commands of the default PHASE job, run in this order; none means `klorosctl doctor`."""

    @field_validator("window_closes")
    @classmethod
    def _window_has_hours(cls, closes: time, info: ValidationInfo) -> time:
        if info.data.get("window_opens") == closes:
            raise ValueError("window_opens and window_closes are the same: such a window has no hours")
        return closes


class Dream(_Section):
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
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = _STEPS
    """Waits after the first, second, … failed D-REAM cycle for promotions; the last one repeats."""


class Promotions(_Section):
    """Which promotions are valid."""

    strict: Annotated[bool, Field(examples=[False])] = False
    """Whether a parameter without bounds makes a promotion invalid."""
    bounds: Annotated[dict[str, Bounds], Field(examples=["learning_rate = [1e-4, 0.1]"])] = {
        "learning_rate": (1e-4, 0.1),
        "batch_size": (1.0, 128.0),
        "temperature": (0.1, 2.0),
        "context_window": (1000.0, 32000.0),
    }
    """Lowest and highest accepted value of each parameter, both included. A table here replaces the default one."""

    @field_validator("bounds")
    @classmethod
    def _bounds_ascend(cls, bounds: dict[str, Bounds]) -> dict[str, Bounds]:
        for name, (low, high) in bounds.items():
            if low > high:
                raise ValueError(f"bounds.{name}: the lowest value {low} is above the highest {high}")
        return bounds


class EscrowRule(_Section):
    """One rule of `[escrow] require`: a table such as `{parameter = "lr*", change_over = 0.2}`. What it names must all hold,
    parameter and size of one and the same change; at least one is given."""

    parameter: Annotated[str, Field(examples=["learning_rate"])] = ""
    """Name of a parameter, or a pattern with `*`, `?` and `[…]`. Empty: any."""
    change_over: Annotated[float | None, Field(ge=0, examples=[0.2])] = None
    """Relative change of a parameter beyond which, up or down, it matches (0.2 is 20 %). A new parameter, and any change of
    one that was 0, is beyond every size. Not given: any change."""
    actor: Annotated[str, Field(examples=["agent-x"])] = ""
    """OS user who owns the promotion's file. Empty: anybody."""

    @model_validator(mode="after")
    def _names_something(self) -> EscrowRule:
        if not self.parameter and not self.actor and self.change_over is None:
            raise ValueError('the rule names nothing, so it would hold everything; for that, write parameter = "*"')
        return self


class Escrow(_Section):
    """Which accepted promotions wait for a person instead of going into the baseline: `klorosctl escrow`."""

    require: Annotated[tuple[EscrowRule, ...], Field(examples=['require = [{parameter = "lr*"}, {change_over = 0.2}]'])] = ()
    """Rules; an accepted promotion that one of them matches is held. None: nothing is held."""
    four_eyes: Annotated[bool, Field(examples=[True])] = False
    """Whether nobody approves a promotion whose file they owned. What was held under it keeps to it."""
    expires_after: Annotated[Duration, Field(examples=["14d"])] = timedelta(0)
    """Time after which an entry that nobody decided on expires, without a change; 0 for never."""


class Intents(_Section):
    """How requests in `intents/` are taken in."""

    max_pending: Annotated[int, Field(ge=1, examples=[50])] = 50
    """Intents that may wait; beyond it those of the lowest priority are dropped. `KLR_MAX_INTENT_QUEUE`."""
    per_tick: Annotated[int, Field(ge=1, examples=[10])] = 10
    """Intents handled by one tick, so that a flood can't make a tick long."""
    expires_after: Annotated[PositiveDuration, Field(examples=["24h"])] = timedelta(hours=24)
    """Age from which an intent is stale."""
    dedup_within: Annotated[Duration, Field(examples=["1h"])] = timedelta(hours=1)
    """Time within which an intent of the same content counts as the same one."""


_INTENT_TYPE = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$"
_GPU_MEMORY = (
    r"(?i)\b(CUDA|HIP)( error)?:? out of memory|(CUDA|hip)_?error_?(OutOf|out_of_)Memory"
    r"|cudaErrorMemoryAllocation"
)


class ObserverRule(_Section):
    """One rule of the observer. Six are there by default; a table with the name of one of them changes what it names of it,
    any other name makes a further rule. See [the observer](observer.md)."""

    watch: Annotated[
        Literal["promotions", "phase_failures", "heartbeats", "lock_contention", "output"], Field(examples=["output"])
    ]
    """What is counted: promotions that arrive, PHASEs that end without success, programs whose heartbeat file is silent,
    ticks that found the lock held, or lines of cycles' output that match `pattern`."""
    intent: Annotated[str, Field(pattern=_INTENT_TYPE, examples=["alert_disk"])]
    """Type of the intent, which says what is done about it. A rule makes no reflections."""
    priority: Annotated[int, Field(ge=0, le=10, examples=[8])] = 5
    """The intent's priority, 0 (lowest) to 10."""
    at_least: Annotated[int, Field(ge=1, examples=[3])] = 1
    """How many there must be; no matter for heartbeats."""
    within: Annotated[PositiveDuration, Field(examples=["10min"])] = timedelta(hours=1)
    """Time within which they count; of heartbeats, how long a file may be silent."""
    cooldown: Annotated[Duration, Field(ge=timedelta(minutes=1), examples=["1h"])] = timedelta(hours=1)
    """Time after its intent in which the rule makes no other, across restarts; for heartbeats, none for the same program. At
    least a minute, so that a rule which starts what it watches does not keep itself going."""
    pattern: Annotated[str, Field(max_length=1000, examples=["No space left on device"])] = ""
    """Regular expression of Python for lines of output, given up after ten seconds; empty for everything else."""
    enabled: Annotated[bool, Field(examples=[False])] = True
    """Whether the rule is asked."""

    @model_validator(mode="after")
    def _is_coherent(self) -> ObserverRule:
        if bool(self.pattern) != (self.watch == "output"):
            raise ValueError("pattern belongs to a rule that watches output, and to no other")
        if self.intent == "idle_reflection":
            raise ValueError("no rule may ask for a reflection; [reflection] interval does")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}") from None
        return self


_RULES: dict[str, dict[str, object]] = {
    "promotion_cluster": {
        "watch": "promotions",
        "intent": "trigger_phase_promotion_cluster",
        "priority": 7,
        "at_least": 3,
        "within": "10min",
    },
    "phase_failed": {"watch": "phase_failures", "intent": "alert_phase_failed", "priority": 6, "within": "24h"},
    "heartbeat_silent": {"watch": "heartbeats", "intent": "alert_heartbeat_silent", "priority": 8, "within": "5min"},
    "lock_contention": {
        "watch": "lock_contention",
        "intent": "suggest_lock_contention",
        "priority": 5,
        "at_least": 11,
        "within": "1h",
    },
    "gpu_out_of_memory": {
        "watch": "output",
        "intent": "alert_gpu_out_of_memory",
        "priority": 9,
        "within": "24h",
        "pattern": _GPU_MEMORY,
    },
    "critical_line": {
        "watch": "output",
        "intent": "alert_critical_line",
        "priority": 10,
        "within": "24h",
        "pattern": r"\b(CRITICAL|FATAL)\b",
    },
}
"""The figures 3 in 10 min, 5 min, more than 10 in an hour, an hour of cooldown, and the priorities are the issue's."""


class Observer(_Section):
    """What is watched, and asked for when it happens. Each rule leaves an intent, which obeys the same rules and gates as
    everybody's."""

    heartbeats: Annotated[dict[str, AbsolutePath], Field(examples=['trader = "/run/trader/heartbeat"'])] = {}
    """Programs by name, each with the file that it touches while it lives."""
    rules: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")], ObserverRule],
        Field(examples=["[observer.rules.disk_full]"]),
    ] = {}
    """Rules by name. Those of the program are there without being named; `enabled = false` under its name turns one off."""

    @field_validator("rules", mode="before")
    @classmethod
    def _ours_are_there(cls, rules: object) -> object:
        if not isinstance(rules, dict):
            return rules
        for name, rule in rules.items():
            if isinstance(rule, dict) and name not in _RULES and "watch" not in rule:
                near = difflib.get_close_matches(str(name), _RULES, n=1)
                ours = f"did you mean {near[0]}?" if near else f"there are {', '.join(_RULES)}"
                raise ValueError(f"{name} is none of the program's rules ({ours}), and one of yours needs watch and intent")
        changed = {
            name: {**_RULES.get(name, {}), **rule} if isinstance(rule, dict) else rule for name, rule in rules.items()
        }
        return {**_RULES, **changed}


class Reflection(_Section):
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


class Cycles(_Section):
    """How the cycle runner treats any job."""

    log_limit_bytes: Annotated[int, Field(ge=4096, examples=[67108864])] = 64 * 1024 * 1024
    """Bytes of a cycle's output that are kept; the rest is dropped and a marker says so. 64 MiB."""
    term_grace: Annotated[Duration, Field(examples=["10s"])] = timedelta(seconds=10)
    """Time between SIGTERM and SIGKILL to a process tree that must end."""
    bundle: Annotated[bool, Field(examples=[True])] = True
    """Whether a bundle of each finished cycle is made, in `bundles_dir`. It goes with its cycle, see `[retention]`."""


class Loop(_Section):
    """The continuous loop, `python -m orchestration.run_loop`. Each setting is also a flag: `--max-failures` for
    `max_failures`. Relative paths are seen from `working_dir`."""

    mode: Annotated[str, Field(examples=["experimental"])] = "experimental"
    """Mode that the command is given; any word."""
    goal: Annotated[str, Field(examples=["Summarise the last artifact"])] = ""
    """The one goal of every iteration."""
    goal_file: Annotated[str, Field(examples=["goals.txt"])] = ""
    """File with one goal a line; empty lines and lines that begin with `#` are none. Read anew for each iteration."""
    goal_order: Annotated[Literal["turn", "random"], Field(examples=["turn"])] = "turn"
    """Whether the goals of the file are taken in turn, also across restarts, or at random."""
    goal_from: Annotated[Literal["settings", "intents"], Field(examples=["intents"])] = "settings"
    """Where goals come from. `intents`: from intents whose type begins with `loop_goal`, the highest priority first;
    while none waits, from `goal` or `goal_file`, and with neither the loop waits for one."""
    seed: Annotated[int, Field(examples=[7])] = 0
    """The same seed gives the same goals at random, and the same jitter."""
    iterations: Annotated[int, Field(ge=1, examples=[10])] = 1
    """How many iterations one call of the loop does."""
    continuous: Annotated[bool, Field(examples=[True])] = False
    """Whether it goes on until it is stopped, whatever `iterations` says."""
    sleep: Annotated[Duration, Field(examples=["5min"])] = timedelta(minutes=5)
    """Wait between two iterations."""
    timeout: Annotated[PositiveDuration, Field(examples=["5min"])] = timedelta(minutes=5)
    """Longest run of the command; after it the whole process tree is ended. The prerequisites get as long."""
    max_failures: Annotated[int, Field(ge=0, examples=[3])] = 3
    """Failures in a row at which the loop gives up with exit code 3; 0 for never."""
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = _STEPS
    """Waits after the first, second, … failure in a row; the last one repeats. A longer `sleep` counts instead."""
    max_backoff: Annotated[Duration, Field(examples=["30min"])] = timedelta(minutes=30)
    """Longest of those waits."""
    jitter: Annotated[float, Field(ge=0, le=1, examples=[0.1])] = 0.0
    """Part by which a wait after a failure may be longer, so that many hosts don't try again together."""
    stop_file: Annotated[str, Field(examples=["state/stop"])] = ""
    """While this file exists no iteration starts, and a wait ends; the loop ends well."""
    stop_timeout: Annotated[Duration, Field(examples=["20s"])] = timedelta(0)
    """Time that a running cycle gets after SIGINT or SIGTERM before it is cancelled; 0 for as long as it takes."""
    log_dir: Annotated[str, Field(min_length=1, examples=["logs/run_cycle"])] = "logs/run_cycle"
    """Folder of one log per iteration, and of `latest.json`."""
    history_path: Annotated[str, Field(min_length=1, examples=["state/run_cycle_history.jsonl"])] = (
        "state/run_cycle_history.jsonl"
    )
    """File that gets one line per iteration."""
    archives: Annotated[str, Field(examples=["state/planner_digest_archives/*"])] = "state/planner_digest_archives/*"
    """Pattern of the planner's archives, of which a good run leaves a new one. Empty: none is expected."""
    cap_writes: Annotated[int, Field(ge=-1, examples=[20])] = -1
    """Write cap that the command is told as `RUN_CYCLE_CAP_WRITES`; -1: there is none, and it is not told any."""
    sandbox_reset: Annotated[bool, Field(examples=[True])] = False
    """Whether the command is told to reset its sandbox first: `RUN_CYCLE_SANDBOX_RESET=1`."""
    command: Annotated[Command, Field(min_length=1, examples=[["tools/run_cycle.sh", "{mode}", "{goal}"]])] = (
        "tools/run_cycle.sh",
        "{mode}",
        "{goal}",
    )
    """The program and its arguments, run without a shell; `{mode}` and `{goal}` stand for theirs."""
    prerequisites: Annotated[Command, Field(examples=[["python3", "scripts/check_run_cycle_prereqs.py"]])] = ()
    """Command that must end with 0 first. Empty: `scripts/check_run_cycle_prereqs.py`, if there is one."""
    working_dir: WorkingDir = ""
    """Folder in which both commands run; empty means the one in which the loop was started."""
    require_modules: Annotated[tuple[str, ...], Field(examples=[["yaml"]])] = ()
    """Python modules that must be found by the loop's own interpreter."""
    require_executables: Annotated[tuple[str, ...], Field(examples=[["git"]])] = ()
    """Programs that must be found in PATH."""
    require_variables: Annotated[tuple[str, ...], Field(examples=[["API_KEY"]])] = ()
    """Variables that must be set and not empty."""
    require_hosts: Annotated[tuple[str, ...], Field(examples=[["example.org:443"]])] = ()
    """`host:port` that must accept a connection within five seconds."""
    require_free_disk: Annotated[int, Field(ge=0, examples=[1073741824])] = 0
    """Bytes that must be free where the command runs."""
    require_free_memory: Annotated[int, Field(ge=0, examples=[536870912])] = 0
    """Bytes of memory that must be available."""
    require_git_clean: Annotated[bool, Field(examples=[True])] = False
    """Whether the git work tree must have no changes."""
    require_git_revision: Annotated[str, Field(examples=["main"])] = ""
    """Revision, as git names them, that must be checked out."""


class Validation(_Section):
    """What becomes of a version of the baseline, by the results of the PHASEs under it and under the version before; see
    docs/explanation/validation.md."""

    keep_at: Annotated[float, Field(ge=0, examples=[0.02])] = 0.02
    """Relative gain of the median from which a version counts as kept (0.02 is +2 %); between the two it is neutral."""
    roll_back_below: Annotated[float, Field(le=0, examples=[-0.05])] = -0.05
    """Relative gain of the median below which the version before is put in force again."""
    results: Annotated[int, Field(ge=3, examples=[3])] = 3
    """PHASE results on each side that are needed; with fewer, a version stays undecided. Three outvote one outlier."""
    automatic: Annotated[bool, Field(examples=[True])] = True
    """Whether ticks roll back by themselves. Off: the rollback waits in escrow for a person."""


class Retention(_Section):
    """How long cycles stay on disk. One goes, with its bundle, when neither number nor age keeps it; its row in the store
    stays. Pinned cycles, unsettled ones, and those that something refers to are never removed. The loop's logs of iterations
    go by the same numbers."""

    keep_last: Annotated[int, Field(ge=0, examples=[200])] = 200
    """The newest cycles are kept whatever their age: so many PHASEs and so many D-REAM cycles. The loop's and reflections
    push none of these out; they are kept when among so many newest of all."""
    keep_for: Annotated[Duration, Field(examples=["90d"])] = timedelta(days=90)
    """Cycles that ended within this time are kept whatever their number. A quarter, so that its report can be checked."""
    per_tick: Annotated[int, Field(ge=0, examples=[2])] = 2
    """Cycles that one tick removes, so that a backlog can't make a tick long. 0: only `klorosctl prune` removes any."""
    keep_ticks: Annotated[Duration, Field(ge=timedelta(days=1), examples=["400d"])] = timedelta(days=400)
    """Ticks in the store are kept for this long; at least a day. So a year can be looked back at."""
    keep_processed: Annotated[Duration, Field(ge=timedelta(days=1), examples=["90d"])] = timedelta(days=90)
    """Intents in `intents/processed/`, with what the store remembers of them, and signals are kept for this long, the signal
    of the last PHASE that succeeded for good; at least a day."""
    keep_versions: Annotated[int, Field(ge=10, examples=[100])] = 100
    """Files of the newest versions of the baseline are kept in `baseline/versions/`: so many, at least 10. The store keeps
    every version, so that each can still be shown, compared and rolled back to."""
    threads: Annotated[dict[str, PositiveDuration], Field(examples=["[retention.threads]"])] = {}
    """Threads of the bridge that are resolved or closed, by workspace, `*` for all that are not named: this long after their
    last change they go out of the store, once they are safe in `archive/threads/` of the state directory. Not named: for
    ever. `klorosctl threads import` gives one back."""


class Federation(_Section):
    """Where the bundles of finished cycles are copied to. Off unless `target` is set."""

    target: Annotated[str, Field(pattern=r"^([a-z][a-z0-9+.-]*://.+)?$", examples=["s3://bucket/kloros"])] = ""
    """Folder or bucket as a URL that fsspec knows (`file://`, `s3://`, `sftp://`, …); empty: bundles stay here. Needs the
    extra `federation`, for S3 the extra `s3`, for SFTP `sftp`. Keep credentials out of it: they belong into the environment
    of the cycle service, such as `AWS_ACCESS_KEY_ID`, or a file that it names."""
    options: Annotated[dict[str, str | int | bool], Field(examples=['endpoint_url = "https://minio.example"'])] = {}
    """Further options for fsspec's file system of that URL, by its own names."""
    timeout: Annotated[PositiveDuration, Field(examples=["10min"])] = timedelta(minutes=10)
    """Longest time for one bundle; it has then failed, and is tried again. On systemd the next cycle waits for it."""
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = _STEPS
    """Waits after the first, second, … failed attempt for a cycle; the last one repeats, for as long as it takes."""


class Pulse(_Section):
    """The served page, metrics and API: `python -m orchestration.serve`, `kloros-pulse.socket`."""

    host: Annotated[str, Field(min_length=1, examples=["127.0.0.1"])] = "127.0.0.1"
    """Address to listen on, or a name of one. Anything but this host's own loopback needs a token. Under systemd
    `kloros-pulse.socket` says where."""
    port: Annotated[int, Field(ge=0, le=65535, examples=[9410])] = 9410
    """TCP port to listen on; 0 for any free one, which is told at the start."""
    idle_exit: Annotated[Duration, Field(examples=["15min"])] = timedelta(minutes=15)
    """Time without a request after which a server that systemd's socket started ends; 0 for never. Fifteen minutes bridge
    the reloads of one look at the page."""
    token_file: Annotated[str, Field(pattern=r"^(/.*)?$", examples=["/etc/kloros/pulse-token"])] = ""
    """File of the token that readers must show, 16 characters or more, readable for its owner alone. Empty: systemd's
    credential `pulse-token`, if there is one; without any, only this host's loopback is served."""
    hosts: Annotated[tuple[str, ...], Field(examples=[["kloros.example.org"]])] = ()
    """Further names under which readers may ask on loopback, such as a proxy's. `localhost`, the loopback addresses and
    this host's own name always may."""


class Filter(_Section):
    """One pattern for texts of the bridge: bodies, metadata, titles, reasons, prompts."""

    pattern: Annotated[str, Field(min_length=1, examples=["AKIA[0-9A-Z]{16}"])]
    """Regular expression, in the words of Python's `re`, looked for anywhere in a text."""
    act: Annotated[Literal["refuse", "mask"], Field(examples=["mask"])] = "refuse"
    """What becomes of a text in which it is found: refused, or kept with `[removed]` in its place."""

    @field_validator("pattern")
    @classmethod
    def _pattern_is_one(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return pattern


class Bridge(_Section):
    """The bridge, in which agents talk: `python -m orchestration.serve --bridge`, `kloros-bridge.service`. Needs the extra
    `bridge`."""

    host: Annotated[str, Field(min_length=1, examples=["127.0.0.1"])] = "127.0.0.1"
    """Address to listen on, or a name of one. Pulse is served beside it, so anything but this host's own loopback needs
    `[pulse] token_file` too."""
    port: Annotated[int, Field(ge=0, le=65535, examples=[9411])] = 9411
    """TCP port to listen on; 0 for any free one, which is told at the start."""
    workspace: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$", examples=["kloros"])] = "kloros"
    """Workspace of this host's commands and of the tokens that it issues, where they name none."""
    auth_jwks_url: Annotated[str, Field(examples=["https://id.example.org/.well-known/jwks.json"])] = ""
    """URL of the public keys of whoever issues tokens (JWKS): https, or http on this host's own loopback. Empty: tokens are
    those that `klorosctl token issue` signs on this host."""
    auth_issuer: Annotated[str, Field(examples=["https://id.example.org/"])] = ""
    """What a token must say of who issued it, `iss`. Needed with `auth_jwks_url`; without, `kloros` by default."""
    auth_audience: Annotated[str, Field(examples=["kloros-bridge"])] = ""
    """What a token must say of whom it is for, `aud`. Needed with `auth_jwks_url`; without, `kloros-bridge` by default."""
    auth_keys_refresh: Annotated[PositiveDuration, Field(ge=timedelta(seconds=30), examples=["10min"])] = timedelta(
        minutes=10
    )
    """Time after which the keys are asked for again, at least 30 s. A token that names another key asks at once, though not
    twice within 30 s."""
    auth_keys_keep: Annotated[PositiveDuration, Field(examples=["24h"])] = timedelta(days=1)
    """How long the last keys count while their issuer is out of reach. A day bridges an outage; a key that its issuer
    withdraws meanwhile counts as long."""

    agent_posts_per_minute: Annotated[int, Field(ge=0, examples=[120])] = 120
    """Messages that one agent may post within a minute, in all its threads together; 0 for any number. Two a second are
    more than a model writes."""
    thread_posts_per_minute: Annotated[int, Field(ge=0, examples=[600])] = 600
    """Messages that one thread takes within a minute, from everybody together; 0 for any number."""
    max_turns: Annotated[int, Field(ge=0, examples=[20])] = 20
    """A thread is blocked after so many messages of agents without a change of status or a new type of event; 0: never."""
    max_repeats: Annotated[int, Field(ge=0, examples=[3])] = 3
    """A thread is blocked when one finding was reported or rejected so many times without being verified; 0: never."""
    filters: Annotated[dict[str, Filter], Field(examples=["[bridge.filters.keys]"])] = {}
    """Patterns that refuse a text, or mask what they match, before anything is kept; applied in this order."""
    filter_command: Annotated[Command, Field(examples=[["/opt/app/judge"]])] = ()
    """Program that looks at each message first, a JSON file named by `KLR_MESSAGE`: it ends with 0 to let it pass, with 1 to
    refuse it. Empty: none. One message at a time: it makes posting slow."""
    filter_timeout: Annotated[PositiveDuration, Field(examples=["5s"])] = timedelta(seconds=5)
    """Longest time for one judgement; after it the message is refused."""
    summary_command: Annotated[Command, Field(examples=[["/opt/app/summarise"]])] = ()
    """Program that writes the summaries of threads, by a model for example: it finds a JSON file by `KLR_THREAD`, and prints
    the summary. Empty, or when it fails: the bridge's own, made of the thread's events."""
    summary_timeout: Annotated[PositiveDuration, Field(examples=["30s"])] = timedelta(seconds=30)
    """Longest time for one summary; after it the bridge's own is given."""

    @field_validator("auth_jwks_url")
    @classmethod
    def _keys_come_by_a_safe_way(cls, url: str) -> str:
        if url and not _SAFE_URL.fullmatch(url):
            raise ValueError("https://…, or http:// on localhost: whoever changes the keys on their way can sign tokens")
        return url

    @model_validator(mode="after")
    def _an_issuer_elsewhere_has_a_name(self) -> Bridge:
        if self.auth_jwks_url and not (self.auth_issuer and self.auth_audience):
            raise ValueError("auth_jwks_url needs auth_issuer and auth_audience too")
        return self


class Wake(_Section):
    """When and how dormant agents are woken: `python -m orchestration.supervise`, `kloros-supervisor.service`. See
    [waking](waking.md)."""

    interval: Annotated[PositiveDuration, Field(examples=["5s"])] = timedelta(seconds=5)
    """Time between two passes of the supervisor. A message is acted on at once, by a hint; this is how late it may be when
    the hint was lost."""
    lease: Annotated[PositiveDuration, Field(ge=timedelta(seconds=5), examples=["30s"])] = timedelta(seconds=30)
    """How long a supervisor's claim on a trigger holds unless it is renewed; after it another one takes the trigger up. Six
    passes, so that a slow one loses nothing."""
    cooldown: Annotated[Duration, Field(examples=["5s"])] = timedelta(seconds=5)
    """Time after a trigger has ended in which none is made for the same thread and agent; what is posted meanwhile waits for
    it, and makes one trigger. A pass long."""
    attempts_per_minute: Annotated[int, Field(ge=1, examples=[10])] = 10
    """Attempts to wake one agent for one thread within any minute; more wait. One trigger makes at most eight by default,
    so that only triggers on the heels of each other meet it."""
    fresh_within: Annotated[PositiveDuration, Field(examples=["90s"])] = timedelta(seconds=90)
    """Age up to which a session's heartbeat says that it lives. Three beats of half a minute: one that is late makes nobody
    dead."""
    ack_within: Annotated[PositiveDuration, Field(examples=["8s"])] = timedelta(seconds=8)
    """Time in which an agent acknowledges what was put into its terminal: it reads, or says that it is active. Keys that
    were sent are no delivery."""
    retries: Annotated[int, Field(ge=0, examples=[2])] = 2
    """How often a terminal that did not acknowledge is given as long again before another way is taken. Nothing is put in
    twice: a prompt that still stands in the input line is sent off, nothing more."""
    typing_within: Annotated[Duration, Field(examples=["20s"])] = timedelta(seconds=20)
    """Time after a person's last key in a terminal during which nothing is put in; 0: nobody is waited for."""
    defer_every: Annotated[PositiveDuration, Field(examples=["5s"])] = timedelta(seconds=5)
    """How soon a trigger that waits for a person who types is looked at again."""
    defer_at_most: Annotated[Duration, Field(examples=["60s"])] = timedelta(seconds=60)
    """Longest such wait, from the first; then another way is taken, and a collision is told. A minute is a long answer to
    type, and short for who waits."""
    resumes: Annotated[int, Field(ge=0, examples=[2])] = 2
    """Turns of an earlier session that one trigger may try before it spawns a new one; 0: always a new one."""
    resume_within: Annotated[PositiveDuration, Field(examples=["12h"])] = timedelta(hours=12)
    """Silence of a session after which it is not resumed: a new one, with the thread's summary, costs less than a long
    history that is out of date."""
    failures: Annotated[int, Field(ge=1, examples=[3])] = 3
    """Failures of an agent's runtime within `failures_within`, in all its threads, from which no session of it is resumed
    but a new one spawned: what fails again and again may be the session."""
    failures_within: Annotated[PositiveDuration, Field(examples=["15min"])] = timedelta(minutes=15)
    """Time in which those failures count."""
    spawns: Annotated[int, Field(ge=1, examples=[3])] = 3
    """New sessions that one trigger may try; after the last it is a dead letter, which the thread is told."""
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = _STEPS
    """The brake of crash loops: waits after the first, second, … failure beyond `failures` before a session is spawned, and
    before the same unread messages wake an agent again that was woken and has not read them; the last one repeats."""
    unheeded: Annotated[int, Field(ge=1, examples=[5])] = 5
    """Attempts at the same unread messages after which no more are made: an agent that is woken and never reads costs money
    each time. The last trigger is a dead letter."""
    orphaned_after: Annotated[PositiveDuration, Field(examples=["15min"])] = timedelta(minutes=15)
    """Time after which a trigger that no host takes up, since none has a profile for its agent, is a dead letter. Longer
    than a reboot."""


class Agent(_Section):
    """An agent that this host may wake: what runs it. Agents without a table here are left to other hosts, and to
    themselves."""

    runtime: Annotated[Literal["codex", "claude", "command", "tmux"], Field(examples=["codex"])] = "codex"
    """What runs its turns: the Codex CLI, Claude Code, any program by `resume` and `spawn`, or nothing: `tmux` is woken in
    its terminal alone. Each kind can also live in a terminal, by `klorosctl agent start`."""
    workspace: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._@:-]{0,127})?$", examples=["kloros"])] = ""
    """Workspace whose agent it is; empty: `[bridge] workspace`."""
    program: Annotated[Command, Field(examples=[["codex"]])] = ()
    """The runtime's program, with arguments that stand before ours; empty: its usual name, in PATH."""
    arguments: Annotated[Command, Field(examples=[["-c", 'sandbox_mode="workspace-write"']])] = ()
    """Further arguments of each turn, before session and prompt; for `codex` and `claude`. They have to be ones that the
    runtime takes with a resumed session too: `codex exec resume` knows `-c`, but no `-s` and no `-C`."""
    start: Annotated[Command, Field(examples=[["codex", "--no-alt-screen"]])] = ()
    """What `klorosctl agent start` runs in the terminal; empty: `program`. For `command` and `tmux` it has to be given there
    or here."""
    resume: Annotated[Command, Field(examples=[["/opt/app/agent", "--session", "{session}"]])] = ()
    """For `command`: one turn of the session `{session}`, run without a shell. An element that is `{prompt}` becomes the
    prompt; without one it comes on standard input. Empty: sessions are not resumed."""
    spawn: Annotated[Command, Field(examples=[["/opt/app/agent", "{prompt}"]])] = ()
    """For `command`: the first turn of a new session, likewise."""
    session_field: Annotated[str, Field(min_length=1, examples=["session_id"])] = "session_id"
    """For `command`: the field of a JSON line of its output that names the session; a turn without one is no session to
    resume."""
    working_dir: WorkingDir = ""
    """Folder in which its turns and its terminal run; empty: a turn's cycle's own, for a terminal the caller's."""
    variables: Annotated[dict[str, str], Field(examples=['CODEX_HOME = "/var/lib/agents/reviewer"'])] = {}
    """Further environment of its turns and its terminal. Keep secrets out: `klorosctl config` shows them."""
    timeout: Annotated[PositiveDuration, Field(examples=["30min"])] = timedelta(minutes=30)
    """Longest turn; after it the whole process tree is ended, and the attempt has failed. As long as a D-REAM cycle."""

    @model_validator(mode="after")
    def _has_a_way(self) -> Agent:
        if self.runtime == "command" and not self.spawn:
            raise ValueError("runtime command needs spawn, the command of a first turn")
        if self.runtime != "command" and (self.resume or self.spawn):
            raise ValueError(
                f"resume and spawn belong to runtime command; {self.runtime} knows its own: use program, arguments"
            )
        if self.resume and not any("{session}" in part for part in self.resume):
            raise ValueError("resume does not say which session: one element has to contain {session}")
        return self


class Notices(_Section):
    """Whom the host tells when its verdict changes or a unit of ours fails, through Apprise URLs. Needs the extra
    `notices`. On systemd the URLs stand in `/etc/kloros/notices.urls`, one a line, which only root reads."""

    urls_file: Annotated[str, Field(pattern=r"^(/.*)?$", examples=["/home/ada/.config/kloros/notices.urls"])] = ""
    """File with one Apprise URL a line, for its owner alone (0600). For one person's installation and hosts without systemd;
    where systemd hands us `/etc/kloros/notices.urls`, that counts. Neither: nobody is told."""
    per_hour: Annotated[int, Field(ge=1, examples=[6])] = 6
    """Most notices within an hour; what is news then waits, and is told as it stands when its turn has come."""
    settle: Annotated[Duration, Field(examples=["5min"])] = timedelta(minutes=5)
    """Good news waits this long, so that a verdict that flaps is told once: a condition must have been gone for it."""
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = _STEPS
    """Waits after the first, second, … attempt at a notice that was not taken; the last one repeats."""


class Heartbeat(_Section):
    """A dead-man's switch somewhere else, which raises the alarm when this host falls silent. Off unless `url` is set."""

    url: Annotated[str, Field(pattern=r"^(https?://[^\s/]+\S*)?$", examples=["https://hc-ping.com/<uuid>"])] = ""
    """URL in the style of healthchecks.io: each tick pings `/start`, then the URL itself when it has decided, else
    `/<exit code>`. A host that is disabled, halted or gone pings nothing."""
    timeout: Annotated[PositiveDuration, Field(le=timedelta(seconds=10), examples=["5s"])] = timedelta(seconds=5)
    """Longest time for one ping, at most 10 s. It is spent beside the tick, never by it."""


class Slurm(_Section):
    """How Slurm's commands are used, by jobs with `executor = "slurm"`."""

    python: Annotated[str, Field(pattern=r"^(/.*)?$", examples=["/opt/kloros/bin/python"])] = ""
    """Python on the nodes that has this program; empty: where it lies on this host, which an installation in `/opt/kloros`
    on every node, or a shared one, makes true."""
    patience: Annotated[PositiveDuration, Field(le=timedelta(minutes=2), examples=["20s"])] = timedelta(seconds=20)
    """Longest time for one of Slurm's commands, at most 2 min; after it Slurm is out of reach, and the cycle waits."""
    lag: Annotated[Duration, Field(examples=["2min"])] = timedelta(minutes=2)
    """How long what a node has written may take to be seen here, and Slurm's controller to know its jobs after a restart;
    NFS keeps what it knows of a folder for up to a minute (nfs(5), acdirmax)."""


class Settings(_Section):
    """All settings."""

    orchestration_mode: Annotated[str, Field(examples=["enabled"])] = "disabled"
    """Must be exactly `enabled` for a tick to do anything."""
    state_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/kloros"])]
    """Folder of the store, locks, intents, cycles: `/var/lib/kloros`, for a plain user `$XDG_STATE_HOME/kloros`."""
    database_url: Annotated[str, Field(pattern=r"^(postgres(ql)?://\S+)?$", examples=["postgresql:///kloros"])] = ""
    """PostgreSQL 15 or later for the bridge's threads, messages and audit, as a libpq URL; needs the extra `postgres`. If it
    is empty, they lie in `kloros.db` in the state folder, as everything else always does. Several servers of the bridge,
    on several hosts, may share one database. Keep the password in a passfile (`~/.pgpass`): `klorosctl config` shows
    settings."""
    promotions_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/kloros/promotions"])]
    """Folder where D-REAM leaves promotions; `promotions` in the state folder by default."""
    acks_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/kloros/promotions_ack"])]
    """Folder of our answers to promotions; `promotions_ack` in the state folder by default."""
    cycles_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/kloros/cycles"])]
    """Folder of the cycles' folders; `cycles` in the state folder by default."""
    bundles_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/kloros/out"])]
    """Folder of the cycles' bundles; `out` in the state folder by default."""
    textfile: Annotated[AbsolutePath, Field(examples=[_COLLECTED])]
    """File for node_exporter's textfile collector: of the state in `/var/lib/kloros` that in the folder of Debian's package,
    `/var/lib/prometheus/node-exporter/kloros.prom`; of any other state `kloros.prom` in its folder by default."""
    agents: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$")], Agent],
        Field(examples=["[agents.reviewer]"]),
    ] = {}
    """Agents that this host may wake, by their names on the bridge."""
    launcher: Annotated[Literal["auto", "systemd", "detached", "external"], Field(examples=["auto"])] = "auto"
    """How cycles are started: by kloros-cycle.path, or as a process of its own; `auto` sees which there is. `external`: not
    by us, for something else runs `python -m orchestration.run_cycle` again and again, such as a CronJob of Kubernetes."""
    phase: Phase = Phase()
    dream: Dream = Dream()
    promotions: Promotions = Promotions()
    escrow: Escrow = Escrow()
    intents: Intents = Intents()
    observer: Observer = Observer()
    reflection: Reflection = Reflection()
    cycles: Cycles = Cycles()
    loop: Loop = Loop()
    validation: Validation = Validation()
    retention: Retention = Retention()
    federation: Federation = Federation()
    slurm: Slurm = Slurm()
    pulse: Pulse = Pulse()
    bridge: Bridge = Bridge()
    wake: Wake = Wake()
    notices: Notices = Notices()
    heartbeat: Heartbeat = Heartbeat()

    @model_validator(mode="before")
    @classmethod
    def _folders_follow_the_state(cls, values: object) -> object:
        if not isinstance(values, dict) or not isinstance(values.get("state_dir"), str):
            return values
        state_dir = values["state_dir"].rstrip("/")
        names = {"promotions_dir": "promotions", "acks_dir": "promotions_ack", "cycles_dir": "cycles", "bundles_dir": "out"}
        folders = {setting: f"{state_dir}/{name}" for setting, name in names.items()}
        textfile = _COLLECTED if state_dir == _SYSTEM_STATE_DIR else f"{state_dir}/kloros.prom"
        return {**folders, "textfile": textfile, **values, "state_dir": state_dir}
