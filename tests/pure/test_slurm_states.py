"""What a state of Slurm means for a cycle."""

from __future__ import annotations

import pytest

from orchestration.cycles.cycle import CycleEvent
from orchestration.cycles.slurm.states import MEANINGS, Stage, comment, meaning, read

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
        "restarts": 2, "wall_seconds": None, "cpu_seconds": None, "peak_bytes": None,
    }  # fmt: skip
    assert comment(LINE) == "kloros:0123abcd"


@pytest.mark.parametrize(
    "line", ["", "slurm_load_jobs error: Invalid job id specified", "JobId=x JobState=RUNNING", "JobId=3"]
)
def test_what_is_no_job_is_none(line: str) -> None:
    assert read(line) is None
