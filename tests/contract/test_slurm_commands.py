"""Slurm's commands as we use them, against a real Slurm."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration.cycles.slurm.commands import Slurm, SlurmAway, SlurmRefused
from orchestration.cycles.slurm.states import Seen, Stage, meaning
from tests.contract import slurm


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Slurm]:
    with slurm.running() as running:
        yield running


@pytest.fixture
def commands(cluster: slurm.Slurm) -> Slurm:
    return Slurm(cluster.environ)


@pytest.fixture
def submit(cluster: slurm.Slurm, commands: Slurm, tmp_path: Path) -> Callable[..., int]:
    def submitted(text: str, *options: str) -> int:
        script = tmp_path / "script"
        script.write_text(f"#!/bin/sh\n{text}\n")
        return commands.submit((f"--output={tmp_path}/out", "--no-requeue", *options), str(script))

    return submitted


def _ended(cluster: slurm.Slurm, commands: Slurm, job_id: int) -> Seen:
    found: list[Seen] = []

    def has_ended() -> bool:
        seen = commands.job(job_id)
        assert seen is not None
        found.append(seen)
        return meaning(seen.state).stage is Stage.ENDED

    cluster.wait_for(has_ended, f"the end of job {job_id}")
    return found[-1]


def _runs(cluster: slurm.Slurm, commands: Slurm, job_id: int) -> Seen:
    def runs() -> bool:
        seen = commands.job(job_id)
        return seen is not None and seen.state == "RUNNING"

    cluster.wait_for(runs, f"job {job_id} to run")
    seen = commands.job(job_id)
    assert seen is not None
    return seen


@pytest.mark.parametrize(("script", "state"), [("true", "COMPLETED"), ("exit 3", "FAILED")])
def test_a_job_is_followed_to_its_end(
    cluster: slurm.Slurm, commands: Slurm, submit: Callable[..., int], script: str, state: str
) -> None:
    seen = _ended(cluster, commands, submit(script))
    assert seen.state == state
    assert seen.nodes in cluster.nodes


def test_a_job_is_found_by_its_comment(commands: Slurm, submit: Callable[..., int]) -> None:
    job_id = submit("true", "--comment=kloros:abc")
    found = commands.find("kloros:abc")
    assert found is not None
    assert found.job_id == job_id
    assert commands.find("kloros:ab") is None


def test_a_job_is_cancelled_with_what_its_script_started(
    cluster: slurm.Slurm, commands: Slurm, submit: Callable[..., int], tmp_path: Path
) -> None:
    mark = tmp_path / "told"
    job_id = submit(f"trap 'echo term > {mark}; exit 0' TERM\nwhile :; do sleep 0.1; done")
    _runs(cluster, commands, job_id)
    commands.cancel(job_id)
    assert _ended(cluster, commands, job_id).state == "CANCELLED"
    assert mark.read_text() == "term\n"
    commands.cancel(job_id)  # once more is no matter


def test_what_slurm_refuses_is_told_in_its_words(submit: Callable[..., int]) -> None:
    with pytest.raises(SlurmRefused, match=r"(?i)partition"):
        submit("true", "--partition=none")


def test_a_job_that_nobody_knows_is_none(commands: Slurm) -> None:
    assert commands.job(999_999) is None
    commands.cancel(999_999)


def test_a_controller_that_is_away_is_told_apart_and_comes_back_with_its_jobs(
    cluster: slurm.Slurm, commands: Slurm, submit: Callable[..., int]
) -> None:
    job_id = submit("sleep 2")
    cluster.kill("slurmctld", signal.SIGTERM)  # killed outright, it forgets what it has taken within the last seconds
    for ask in (lambda: commands.job(job_id), lambda: submit("true"), lambda: commands.cancel(job_id)):
        with pytest.raises(SlurmAway):
            ask()
    cluster.start_controller()
    assert _ended(cluster, commands, job_id).state == "COMPLETED"


def test_a_controller_that_hangs_is_given_up(cluster: slurm.Slurm) -> None:
    quick = Slurm(cluster.environ, patience=0.5)
    with cluster.paused("slurmctld"), pytest.raises(SlurmAway, match=r"0\.5 s"):
        quick.job(1)


def test_without_its_commands_slurm_is_away() -> None:
    with pytest.raises(SlurmAway, match="slurm-client"):
        Slurm({"PATH": "/nowhere"}).job(1)


def test_a_node_that_dies_takes_its_job_along(cluster: slurm.Slurm, commands: Slurm, submit: Callable[..., int]) -> None:
    job_id = submit("sleep 60", "--nodelist=node1")
    _runs(cluster, commands, job_id)
    cluster.kill("node1", signal.SIGKILL)
    cluster.ask("scontrol", "update", "nodename=node1", "state=down", "reason=test")
    assert _ended(cluster, commands, job_id).state == "NODE_FAIL"
    cluster.start_node("node1")
    cluster.ask("scontrol", "update", "nodename=node1", "state=resume")
    assert os.path.exists(cluster.conf)
