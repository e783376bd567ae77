"""What a state of Slurm means for a cycle."""

from __future__ import annotations

import pytest

from orchestration.cycles.cycle import CycleEvent
from orchestration.cycles.slurm.states import MEANINGS, Stage, comment, meaning, read, read_accounts, seconds

STATES = [
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "CONFIGURING",
    "COMPLETING",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PENDING",
    "PREEMPTED",
    "RUNNING",
    "RESV_DEL_HOLD",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "REQUEUED",
    "RESIZING",
    "REVOKED",
    "SIGNALING",
    "SPECIAL_EXIT",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
    "TIMEOUT",
]
"""Every one that squeue(1) of 22.05 names."""


def test_every_state_of_the_manual_has_a_meaning() -> None:
    assert set(MEANINGS) == set(STATES)


@pytest.mark.parametrize("state", STATES)
def test_what_has_ended_has_an_event_and_says_why(state: str) -> None:
    found = meaning(state)
    assert (found.event is not None) == (found.stage is Stage.ENDED) == bool(found.words)


def test_no_state_alone_is_a_success() -> None:
    assert CycleEvent.SUCCEED not in {found.event for found in MEANINGS.values()}


def test_an_unknown_state_is_waited_for_in_its_own_words() -> None:
    found = meaning("TELEPORTED")
    assert (found.stage, found.event) == (Stage.RUNS, None)
    assert "TELEPORTED" in found.words


LINE = (
    "JobId=17 JobName=kloros-00042 UserId=root(0) JobState=PENDING Reason=Resources Dependency=(null) Restarts=2 "
    "NodeList=(null) TRES=cpu=1,mem=512M,gres/gpu=1 Comment=kloros:0123abcd WorkDir=/srv/with a space"
)


def test_a_line_of_scontrol_is_read() -> None:
    seen = read(LINE)
    assert seen is not None
    assert seen._asdict() == {
        "job_id": 17, "state": "PENDING", "reason": "Resources", "nodes": "", "gpus": "gres/gpu=1", "partition": "",
        "restarts": 2, "wall_seconds": None, "cpu_seconds": None, "peak_bytes": None, "is_whole": True,
    }  # fmt: skip
    assert comment(LINE) == "kloros:0123abcd"


@pytest.mark.parametrize(
    "line", ["", "slurm_load_jobs error: Invalid job id specified", "JobId=x JobState=RUNNING", "JobId=3"]
)
def test_what_is_no_job_is_none(line: str) -> None:
    assert read(line) is None


@pytest.mark.parametrize(
    ("told", "value"),
    [("00:01:02", 62), ("1-00:00:01", 86401), ("02.250", 2.25), ("01:02.5", 62.5), ("INVALID", None), ("", None)],
)
def test_a_span_is_read(told: str, value: float | None) -> None:
    assert seconds(told) == value


ACCOUNTS = """17|CANCELLED by 1000|node1|batch|billing=2,cpu=2,gres/gpu=1,mem=50M,node=1|62|01:01.500|
17.batch|CANCELLED|node1||cpu=2,mem=50M,node=1|62|01:01.500|20480K
17.0|FAILED|node1||cpu=2,mem=50M,node=1|2|00:00.500|1.50M
170|RUNNING|node2|batch|cpu=1|1|00:00:00|
"""


def test_accounts_are_read_with_the_memory_of_the_largest_step() -> None:
    seen = read_accounts(ACCOUNTS, 17)
    assert seen is not None
    assert seen._asdict() == {
        "job_id": 17, "state": "CANCELLED", "reason": "", "nodes": "node1", "gpus": "gres/gpu=1", "partition": "batch",
        "restarts": 0, "wall_seconds": 62, "cpu_seconds": 61.5, "peak_bytes": 20480 * 1024, "is_whole": True,
    }  # fmt: skip
    assert read_accounts(ACCOUNTS, 1) is None
    assert read_accounts("", 17) is None


@pytest.mark.parametrize(
    ("told", "is_whole"),
    [
        ("17|FAILED|n|b||1|00:00.017|\n17.batch|CANCELLED by 0|n|||1|00:00.017|3K\n", True),
        ("17|FAILED|n|b||1|00:00:00|\n17.batch|RUNNING|n|||0|00:00:00|\n", False),
        ("17|PENDING|n|b||0|00:00:00|\n17.batch|CANCELLED by 0|n|||1|00:00.017|3K\n", False),
        ("17|FAILED|n|b||1|00:00:00|\n", False),
    ],
    ids=["told", "not of its step", "not of the job", "of no step"],
)
def test_accounts_are_whole_once_all_ends_are_told(told: str, is_whole: bool) -> None:
    seen = read_accounts(told, 17)
    assert seen is not None
    assert seen.is_whole is is_whole
