"""What the end of a job means for its cycle: from what Slurm says, what the step has recorded, and what was asked for.

Reads and asks nothing itself. Three witnesses tell of one end, and none of them alone is enough:
- the step's record says how the command ended, but not why a signal came, and is missing when the step was killed too;
- Slurm's state says why Slurm ended a job, but one that was killed for its memory without control groups is `FAILED`;
- Slurm's log of the job tells that (`JobAcctGatherParams=OverMemoryKill`, slurm.conf(5)).
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final

from orchestration.cycles.cycle import CycleEvent, Result
from orchestration.cycles.judgement import End
from orchestration.cycles.slurm.states import MEANINGS, Stage, meaning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestration.cycles.slurm.states import Seen
    from orchestration.host.process import Completed

_SHELL_SAYS_SIGNALLED: Final = (128 + signal.SIGTERM, 128 + signal.SIGKILL)
_SAYS_OUT_OF_MEMORY: Final = "exceeded memory limit"  # jobacct_common.c of 22.05
_SAYS_NOTHING: Final = ("COMPLETED", "FAILED")
_ONCE: Final = "a command is not run a second time"
_ON_REQUEST: Final = "cancelled on request"


def was_interrupted(completed: Completed) -> bool:
    """Tell whether a signal may have ended the command.

    Slurm signals every process of a job at once: a shell that sees its child die of it before its own comes ends by itself,
    and says so in its exit code (POSIX sh, 2.8.2).
    """
    told_by_shell = completed.returncode in _SHELL_SAYS_SIGNALLED
    return completed.signal is not None or completed.cancelled or told_by_shell


def is_requeued(seen: Seen, began: Mapping[str, Any] | None) -> bool:
    """Tell whether Slurm has put a job back into its queue, or started it again, after its step had begun.

    Args:
        seen: the job. began: what its step noted, None when none has begun.
    """
    if began is None or began.get("SLURM_JOB_ID") != str(seen.job_id):
        return False
    waits = meaning(seen.state).stage is Stage.WAITS and seen.state in MEANINGS
    return waits or seen.restarts > int(began.get("SLURM_RESTART_COUNT", 0))


def of_requeued(seen: Seen, *, cancel_asked: bool) -> End:
    """Judge a cycle whose job Slurm would start again, and whose step has recorded no end."""
    if cancel_asked:
        return End(CycleEvent.CANCEL, Result(reason=_ON_REQUEST))
    why = "Slurm put it back into its queue after its command had begun (preempted, its node failed, or by request)"
    return End(CycleEvent.LOSE, Result(reason=f"{why}; {_ONCE}, how far it came is unknown (Slurm job {seen.job_id})"))


def without_record(seen: Seen, *, began: Mapping[str, Any] | None, cancel_asked: bool, log: str) -> End:
    """Judge a cycle from Slurm alone, whose step has left no record of its end.

    Args:
        seen: the job, which has ended. began: as above. cancel_asked: somebody asked us for the end. log: what Slurm and the
        batch script said last.
    """
    event, words = meaning(seen.state)[1:]
    assert event is not None
    if seen.state == "FAILED" and began is not None:
        event, words = CycleEvent.LOSE, "its step was killed; how far its command came is unknown"
        if _SAYS_OUT_OF_MEMORY in log.lower():
            event, words = MEANINGS["OUT_OF_MEMORY"][1:]
        elif is_requeued(seen, began):
            words = f"Slurm started its job again after its command had begun; {_ONCE}, how far it came is unknown"
    assert event is not None
    if event is CycleEvent.CANCEL and cancel_asked:
        words = _ON_REQUEST
    said = f": {log}" if log and began is None else ""
    result = Result(
        reason=f"{words} (Slurm job {seen.job_id}){said}",
        not_started=began is None,
        wall_seconds=seen.wall_seconds if began is not None else None,
        cpu_seconds=seen.cpu_seconds,
        peak_bytes=seen.peak_bytes,
    )
    return End(event, result)


def with_record(
    judged: End, completed: Completed, seen: Seen | None, *, began: Mapping[str, Any] | None, cancel_asked: bool, log: str
) -> End:
    """Judge a cycle by its step's record, once Slurm says that its job has ended.

    What Slurm ended is no success, whatever the exit code: a command may end with 0 when it is told to end.

    Args:
        judged: what the record alone makes of it. completed: the record. seen: the job; None when Slurm tells nothing of it.
        began, cancel_asked, log: as above.
    """
    asked, how = cancel_asked, f"; its command: {completed.describe()}"
    event, words = judged.event, ""
    if seen is not None and is_requeued(seen, began):
        event, words = CycleEvent.FAIL, f"Slurm ended it, and put it back into its queue; {_ONCE}"
    elif seen is not None and seen.state not in _SAYS_NOTHING and meaning(seen.state).event is not None:
        found = meaning(seen.state)
        event, words = found.event or event, found.words
    elif completed.signal == signal.SIGKILL and _SAYS_OUT_OF_MEMORY in log.lower():
        event, words = MEANINGS["OUT_OF_MEMORY"].event or event, MEANINGS["OUT_OF_MEMORY"].words
    if asked and (event is CycleEvent.CANCEL or was_interrupted(completed)):
        return End(CycleEvent.CANCEL, judged.result._replace(reason=_ON_REQUEST))
    if words:
        number = "" if seen is None else f" (Slurm job {seen.job_id})"
        return End(event, judged.result._replace(reason=f"{words}{number}{how}"))
    if completed.cancelled:  # its step was told to end
        unknown = "a signal ended it, and neither we nor Slurm say why"
        return End(CycleEvent.CANCEL, judged.result._replace(reason=f"{unknown}{how}"))
    return judged
