"""The environment of a cycle's command: what the runner has, and the variables that tell the command about its cycle.

Owns the names; refuses to know where the values come from. The runner's own environment goes along, since
that is where an operator puts what commands need (PATH, keys, `Environment=` in a drop-in); what systemd says
to the runner alone does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestration.cycles.cycle import Cycle, JobName
from orchestration.host.process import TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

CYCLE_VARIABLES: Final = frozenset(
    {
        "CYCLE_ID",
        "KLR_CYCLE",
        "KLR_CYCLE_DIR",
        "KLR_RESUMES",
        TOKEN,
        "KLR_PROMOTIONS",
        "KLR_TOPIC",
        "KLR_BASELINE",
        "KLR_EPOCH",
        "KLR_SIGNALS_DIR",
        "KLR_HINTS",
        "KLR_PHASE_TYPE",
        "KLR_WORKERS",
        "KLR_FIDELITY",
        "KLR_DIGEST",
    }
)
# systemd.exec(5): these speak of the unit's own main process
_RUNNERS_OWN: Final = frozenset(
    {"INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "MAINPID", "NOTIFY_SOCKET"}
    | {"SYSTEMD_EXEC_PID", "TRIGGER_PATH", "TRIGGER_UNIT", "WATCHDOG_PID", "WATCHDOG_USEC"}
)


_NOT_FOR_AGENTS: Final = frozenset({"KLR_DATABASE_URL"})  # whoever has it is anybody on the bridge


def of_agent(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what marks a cycle, and without what an agent has no business with."""
    return {name: value for name, value in without_cycle(environ).items() if name not in _NOT_FOR_AGENTS}


def without_cycle(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what marks a cycle's command, and without what is said to one process alone."""
    return {name: value for name, value in environ.items() if name not in CYCLE_VARIABLES | _RUNNERS_OWN}


def of_command(
    cycle: Cycle, environ: Mapping[str, str], *, state_dir: str, folder: str, extra: Mapping[str, str]
) -> dict[str, str]:
    """Return the command's whole environment.

    Args:
        cycle: whose command it is.
        environ: the runner's.
        state_dir: of the settings.
        folder: the cycle's.
        extra: what only this job gets.
    """
    given = of_agent(environ) if cycle.job is JobName.WAKE else without_cycle(environ)
    return {
        **given,
        "KLR_STATE_DIR": state_dir,
        "KLR_CYCLE": str(cycle.cycle),
        "CYCLE_ID": str(cycle.cycle),
        "KLR_CYCLE_DIR": folder,
        TOKEN: cycle.token,
        **extra,
    }


def of_resumed(earlier: str) -> dict[str, str]:
    """Return what the command of a resumed cycle gets as well: the folder of the earlier run."""
    return {"KLR_RESUMES": earlier}


def of_dream(cycle: Cycle, *, handover: str, baseline: str) -> dict[str, str]:
    """Return what a D-REAM command gets: the paths of its promotions and of the baseline, and its topic (may be empty)."""
    assert cycle.job is JobName.DREAM
    return {"KLR_PROMOTIONS": handover, "KLR_BASELINE": baseline, "KLR_TOPIC": cycle.origin.topic}


def of_reflection(cycle: Cycle, *, digest: str) -> dict[str, str]:
    """Return what the command of a reflection gets: the path of the digest."""
    assert cycle.job is JobName.REFLECTION
    return {"KLR_DIGEST": digest}


def of_loop(cycle: Cycle) -> dict[str, str]:
    """Return what the command of a loop's iteration gets: what the loop noted when it queued the cycle."""
    assert cycle.job is JobName.LOOP
    return dict(cycle.origin.variables)


def of_wake(cycle: Cycle) -> dict[str, str]:
    """Return what the turn of an agent gets: what its runtime asked for."""
    assert cycle.job is JobName.WAKE
    return dict(cycle.origin.variables)


def of_hinted(path: str) -> dict[str, str]:
    """Return what a PHASE command gets as well when there are hints for it: their path."""
    return {"KLR_HINTS": path}


def of_phase(cycle: Cycle, *, epoch: str, signals_dir: str, baseline: str) -> dict[str, str]:
    """Return what a PHASE command gets: the epoch it is, the folder of signals, and the path of the baseline it tests."""
    assert cycle.job is JobName.PHASE
    return {"KLR_EPOCH": epoch, "KLR_SIGNALS_DIR": signals_dir, "KLR_BASELINE": baseline}
