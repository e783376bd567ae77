"""The continuous loop."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from orchestration.settings.fields import STEPS, Command, Duration, PositiveDuration, Section, WorkingDir


class Loop(Section):
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
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = STEPS
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
