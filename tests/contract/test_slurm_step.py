"""The step that Slurm starts on a node: run as a process of its own, as Slurm does, and signalled as Slurm does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from orchestration.cycles.slurm import step
from tests.waiting import until


def give(folder: Path, *lines: str) -> None:
    order = step.Order(
        argv=("/bin/sh", "-c", "\n".join(lines)), env={"PATH": os.defpath}, cwd=str(folder), output=str(folder / "log"),
        output_limit=10_000, timeout=60, grace=1,
    )  # fmt: skip
    step.give(str(folder), order)


def start(folder: Path, **environ: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", step.__name__, str(folder)]
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(command, env={"PATH": os.defpath, "SLURM_JOB_ID": "7", **environ}, stderr=said)


def test_a_command_that_ends_well_of_the_signal_that_ends_its_job_was_told_to_end(tmp_path: Path) -> None:
    give(
        tmp_path,
        "trap 'exit 0' TERM",
        f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid",
        "sleep 60 & wait",
    )
    running = start(tmp_path)
    until((tmp_path / "pid").exists, what="the command runs")
    running.send_signal(signal.SIGTERM)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    assert running.wait(30) == 0
    ended = step.ended(str(tmp_path))
    assert ended is not None
    assert ended.completed is not None
    assert ended.completed.cancelled
    assert not ended.completed.succeeded


def test_what_is_the_jobs_own_is_told_to_its_command_and_put_on_record(tmp_path: Path) -> None:
    give(tmp_path, 'echo "$CUDA_VISIBLE_DEVICES $SLURM_CPUS_ON_NODE ${HOME-none}"')
    own = {"CUDA_VISIBLE_DEVICES": "1,3", "SLURM_CPUS_ON_NODE": "4", "SLURMD_NODENAME": "node1"}
    assert start(tmp_path, HOME="/root", **own).wait(30) == 0
    assert (tmp_path / "log").read_text() == "1,3 4 none\n"
    assert json.loads((tmp_path / step.BEGAN).read_text()) == {"SLURM_JOB_ID": "7", **own}


def test_what_was_begun_is_not_begun_again(tmp_path: Path) -> None:
    give(tmp_path, f"echo ran >> {tmp_path}/mark")
    assert start(tmp_path).wait(30) == 0
    again = start(tmp_path, SLURM_RESTART_COUNT="1")
    assert again.wait(30) == 1
    assert "was begun before; its command is not run again" in (tmp_path / "said").read_text()
    assert (tmp_path / "mark").read_text() == "ran\n"


def test_a_record_that_could_not_be_written_whole_is_none(tmp_path: Path) -> None:
    give(tmp_path, f"echo ran >> {tmp_path}/mark")
    step_of = [sys.executable, "-P", "-m", step.__name__, str(tmp_path)]
    none_fits = subprocess.run(["bash", "-c", 'ulimit -f 0; exec "$@"', "bash", *step_of], capture_output=True, check=False)
    assert none_fits.returncode != 0
    assert step.began(str(tmp_path)) is None
    assert not (tmp_path / "mark").exists()
    assert start(tmp_path).wait(30) == 0
    assert (tmp_path / "mark").read_text() == "ran\n"
