"""What the end of a Slurm job means for its cycle, by what Slurm, the step's record and whoever asked for it say."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from orchestration.cycles.cycle import CycleEvent, Result
from orchestration.cycles.judgement import End
from orchestration.cycles.slurm import endings
from orchestration.cycles.slurm.states import MEANINGS, Seen, Stage
from orchestration.host.process import Completed

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
BEGAN = {"SLURM_JOB_ID": "7"}
FAILED = End(CycleEvent.FAIL, Result(reason="exit code 1", exit_code=1))
ENDED = sorted(state for state, meaning in MEANINGS.items() if meaning.stage is Stage.ENDED)
KILLED_FOR_MEMORY = "slurmstepd: error: StepId=7.batch exceeded memory limit (9 > 1), being killed"


def completed(returncode: int | None = 1, killed_by: int | None = None, *, cancelled: bool = False) -> Completed:
    return Completed(
        returncode=returncode, signal=killed_by, timed_out=False, cancelled=cancelled, leftovers=0, survivors=(),
        started_at=NOON, ended_at=NOON, wall=timedelta(seconds=1), cpu=timedelta(0), peak_bytes=0, output_truncated=False,
    )  # fmt: skip


def with_record(state: str, how: Completed, *, judged: End = FAILED, asked: bool = False, log: str = "") -> End:
    return endings.with_record(judged, how, Seen(7, state), began=BEGAN, cancel_asked=asked, log=log)


@pytest.mark.parametrize(("state", "asked"), [*product(ENDED, (False, True))])
def test_no_state_makes_a_success_of_a_missing_record_and_each_says_why(state: str, asked: bool) -> None:
    for began in (None, BEGAN):
        end = endings.without_record(Seen(7, state), began=began, cancel_asked=asked, log="")
        assert end.event is not CycleEvent.SUCCEED
        assert "Slurm job 7" in end.result.reason
        assert end.result.not_started == (began is None)


@pytest.mark.parametrize("state", ENDED)
def test_a_command_that_did_not_end_well_never_becomes_a_success(state: str) -> None:
    for how in (completed(), completed(0, cancelled=True), completed(None, signal.SIGKILL), completed(143)):
        assert with_record(state, how).event is not CycleEvent.SUCCEED


@pytest.mark.parametrize(
    ("state", "event", "words"),
    [
        ("TIMEOUT", CycleEvent.TIME_OUT, "its time was over"),
        ("DEADLINE", CycleEvent.TIME_OUT, "its deadline had passed"),
        ("PREEMPTED", CycleEvent.FAIL, "higher priority"),
        ("OUT_OF_MEMORY", CycleEvent.FAIL, "more memory"),
        ("NODE_FAIL", CycleEvent.LOSE, "its node failed"),
        ("CANCELLED", CycleEvent.CANCEL, "cancelled in Slurm"),
    ],
)
@pytest.mark.parametrize("how", [completed(), completed(0, cancelled=True), completed(None, signal.SIGTERM)])
def test_what_slurm_ended_is_told_with_slurms_reason_however_the_command_took_it(
    state: str, event: CycleEvent, words: str, how: Completed
) -> None:
    end = with_record(state, how)
    assert end.event is event
    assert words in end.result.reason
    assert how.describe() in end.result.reason


DONE = End(CycleEvent.SUCCEED, Result(reason="exit code 0", exit_code=0))


@pytest.mark.parametrize(("state", "event"), [("TIMEOUT", CycleEvent.TIME_OUT), ("PREEMPTED", CycleEvent.FAIL)])
def test_a_command_that_ended_well_of_slurms_signal_has_not_succeeded(state: str, event: CycleEvent) -> None:
    """The signal came to the command before it came to the step, so that the record knows nothing of it."""
    assert with_record(state, completed(0), judged=DONE).event is event
    assert with_record("COMPLETED", completed(0), judged=DONE) == DONE


def test_a_command_that_ended_well_of_a_cancellation_is_cancelled() -> None:
    assert with_record("CANCELLED", completed(0), judged=DONE, asked=True).event is CycleEvent.CANCEL
    assert with_record("COMPLETED", completed(0), judged=DONE, asked=True) == DONE


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED"])
def test_a_command_that_failed_by_itself_is_told_as_that(state: str) -> None:
    assert with_record(state, completed(3)) == FAILED


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETED", "COMPLETING", "RUNNING"])
@pytest.mark.parametrize("how", [completed(143), completed(0, cancelled=True), completed(None, signal.SIGKILL)])
def test_what_was_asked_to_end_and_was_ended_is_cancelled(state: str, how: Completed) -> None:
    end = End(CycleEvent.CANCEL, FAILED.result._replace(reason="cancelled on request"))
    assert with_record(state, how, asked=True) == end


def test_a_shell_that_turns_the_signal_into_a_code_of_its_own_is_cancelled_too() -> None:
    """`trap 'exit 1' TERM`: no signal is seen, and no code that tells of one."""
    assert with_record("CANCELLED", completed(1), asked=True).event is CycleEvent.CANCEL


def test_what_failed_by_itself_before_the_cancellation_came_has_failed() -> None:
    assert with_record("COMPLETED", completed(3), asked=True) == FAILED


def test_a_signal_that_nobody_sent_for_slurm_or_us_is_told_as_that() -> None:
    end = with_record("COMPLETED", completed(0, cancelled=True))
    assert (end.event, "neither we nor Slurm say why" in end.result.reason) == (CycleEvent.CANCEL, True)
    crashed = End(CycleEvent.FAIL, Result(reason="killed by SIGSEGV"))
    assert with_record("COMPLETED", completed(None, signal.SIGSEGV), judged=crashed) == crashed


def test_memory_that_ran_out_is_told_by_the_log_where_slurm_says_failed() -> None:
    end = endings.without_record(Seen(7, "FAILED"), began=BEGAN, cancel_asked=False, log=KILLED_FOR_MEMORY)
    assert (end.event, "more memory" in end.result.reason) == (CycleEvent.FAIL, True)
    end = with_record("FAILED", completed(None, signal.SIGKILL), log=KILLED_FOR_MEMORY)
    assert (end.event, "more memory" in end.result.reason) == (CycleEvent.FAIL, True)


@pytest.mark.parametrize(
    ("state", "restarts", "began", "is_so"),
    [
        ("PENDING", 0, BEGAN, True),
        ("REQUEUED", 0, BEGAN, True),
        ("PENDING", 0, None, False),
        ("PENDING", 0, {"SLURM_JOB_ID": "6"}, False),
        ("RUNNING", 0, BEGAN, False),
        ("RUNNING", 1, BEGAN, True),
        ("RUNNING", 1, {**BEGAN, "SLURM_RESTART_COUNT": "1"}, False),
        ("FAILED", 1, BEGAN, True),
        ("TELEPORTED", 0, BEGAN, False),
    ],
)
def test_a_job_that_was_put_back_is_known_by_its_mark(
    state: str, restarts: int, began: dict[str, str] | None, is_so: bool
) -> None:
    assert endings.is_requeued(Seen(7, state, restarts=restarts), began) is is_so


def test_a_job_that_was_put_back_is_not_run_again() -> None:
    assert endings.of_requeued(Seen(7, "PENDING"), cancel_asked=False).event is CycleEvent.LOSE
    assert endings.of_requeued(Seen(7, "PENDING"), cancel_asked=True).event is CycleEvent.CANCEL
    end = with_record("PENDING", completed(None, signal.SIGTERM))
    assert (end.event, "not run a second time" in end.result.reason) == (CycleEvent.FAIL, True)
