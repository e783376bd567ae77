"""Cycles that Slurm runs, from a decision to its consequences: ticks, the real runner, a real Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.host import Host, script
from tests.contract import slurm

pytestmark = pytest.mark.xdist_group("slurm")
REPORT = 'echo "{}" > "$KLR_CYCLE_DIR/artifacts/report.json"'


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Slurm]:
    if told := slurm.missing():
        pytest.skip(told)
    with slurm.running() as running:
        yield running


@pytest.fixture
def given(host: Host, cluster: slurm.Slurm, tmp_path: Path) -> Callable[..., None]:
    """Give D-REAM a command of these shell lines, to be run by Slurm; nothing starts by itself."""
    host.stepwise()
    host.set(
        SLURM_CONF=str(cluster.conf),
        KLR_DREAM_EXECUTOR="slurm",
        KLR_CYCLES_TERM_GRACE="1s",
        KLR_DREAM_BACKOFF="0",
        KLR_SLURM_LAG="1s",
    )

    def give(*lines: str, **more: str) -> None:
        host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", lines), **more)
        host.promote("p")
        assert host.decided()["decision"] == "dream_cycle"

    return give


class Following:
    """What a person sees of the one cycle."""

    def __init__(self, host: Host, cluster: slurm.Slurm) -> None:
        self._host, self._cluster = host, cluster

    def look(self) -> None:
        """Have the runner do one pass."""
        done = self._host.run("run_cycle")
        assert done.returncode == 0, done.stderr

    @property
    def state(self) -> str:
        return str(self._host.rows("SELECT state FROM cycles WHERE cycle = 1")[0][0])

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._host.rows("SELECT result FROM cycles WHERE cycle = 1")[0][0])
        return found

    @property
    def job(self) -> dict[str, Any]:
        names = ("job_id", "state", "reason", "nodes", "gpus")
        rows = self._host.rows(f"SELECT {', '.join(names)} FROM slurm_jobs WHERE cycle = 1")
        return dict(zip(names, rows[0], strict=True)) if rows else {}

    def until(self, seen: Callable[[], bool]) -> None:
        """Do pass after pass until it is so."""

        def now() -> bool:
            self.look()
            return seen()

        self._cluster.wait_for(now, f"it; the cycle is {self.state}, the job {self.job}")

    def until_ended(self) -> None:
        self.until(lambda: self.state not in ("queued", "running"))


@pytest.fixture
def following(host: Host, cluster: slurm.Slurm) -> Following:
    return Following(host, cluster)


@pytest.mark.parametrize(
    ("lines", "more", "ended", "reason"),
    [
        (["exit 0"], {}, "succeeded", "exit code 0"),
        (["exit 3"], {}, "failed", "exit code 3"),
        (["sleep 60"], {"KLR_DREAM_TIMEOUT": "1s"}, "timed_out", "timed out"),
    ],
    ids=["succeeds", "fails", "passes its deadline"],
)
def test_a_cycle_ends_as_its_command_does(
    given: Callable[..., None],
    following: Following,
    host: Host,
    lines: list[str],
    more: dict[str, str],
    ended: str,
    reason: str,
) -> None:
    given(*lines, **more)
    following.until_ended()
    assert following.state == ended, following.result
    assert reason in following.result["reason"]
    assert following.result["cpu_seconds"] is not None
    manifest = json.loads((host.state / "cycles/cycle_00001/manifest.json").read_text())
    assert manifest["host"].startswith("node")
    assert manifest["slurm"]["job_id"] == following.job["job_id"]
    assert manifest["slurm"]["nodes"] == manifest["host"] == following.job["nodes"]
    assert manifest["slurm"]["partition"] == "batch"
    assert manifest["resources"]["wall_seconds"] is not None
    assert manifest["resources"]["peak_bytes"] > 1_000_000
    assert not (host.state / "cycles/.slurm/00001").exists()


def test_what_a_cycle_left_on_its_node_is_settled_by_a_tick(
    given: Callable[..., None], following: Following, host: Host
) -> None:
    verdicts = '{"schema": "v1", "verdicts": [{"promotion": "p", "accepted": true, "reason": "better", "fitness": 0.9}]}'
    given(f"echo '{verdicts}' > \"$KLR_CYCLE_DIR/artifacts/verdicts.json\"", 'echo "on $SLURMD_NODENAME"')
    following.until_ended()
    host.decided()
    assert host.ack("p")["accepted"] is True
    assert "on node" in (host.state / "cycles/cycle_00001/logs/output.log").read_text()


def test_a_phase_finds_its_signal_where_others_look(
    host: Host, cluster: slurm.Slurm, tmp_path: Path, following: Following
) -> None:
    host.stepwise()
    host.set(SLURM_CONF=str(cluster.conf), **host.window(opens_in=timedelta(minutes=-30)), KLR_PHASE_EXECUTOR="slurm")
    host.set(KLR_PHASE_COMMAND=script(tmp_path, "phase.sh", [REPORT, 'test -d "$KLR_SIGNALS_DIR"']))
    assert host.decided()["decision"] == "phase"
    following.until_ended()
    assert following.state == "succeeded", following.result
    assert len(list((host.state / "signals").glob("klr_phase_complete_*.json"))) == 1
    host.decided()
    assert host.rows("SELECT result, cycle FROM phase_dates") == [("succeeded", 1)]


def test_a_waiting_job_is_queued_for_slurms_reason_and_keeps_others_from_starting(
    given: Callable[..., None], following: Following, host: Host, cluster: slurm.Slurm
) -> None:
    cluster.ask("scontrol", "update", "partitionname=batch", "state=down")
    try:
        given("exit 0")
        following.until(lambda: following.job.get("reason") == "PartitionDown")
        assert following.state == "queued"
        assert host.decided()["decision"] == "noop"
        assert host.run("klorosctl", "pulse", "build", "--out", str(host.home / "page")).returncode == 0
        shown = (host.home / "page" / "index.html").read_text()
        assert f"Slurm job {following.job['job_id']}: PENDING PartitionDown" in shown
    finally:
        cluster.ask("scontrol", "update", "partitionname=batch", "state=up")
    following.until_ended()
    assert following.state == "succeeded"


def test_a_cancelled_cycle_ends_on_its_node(
    given: Callable[..., None], following: Following, host: Host, tmp_path: Path
) -> None:
    given(f"echo $$ > {tmp_path}/pid; sleep 60")
    following.until(lambda: following.state == "running" and (tmp_path / "pid").exists())
    assert host.run("klorosctl", "cancel", "1").returncode == 0
    following.until_ended()
    assert following.state == "cancelled", following.result
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_cancelled_cycle_whose_shell_ends_by_itself_is_cancelled(
    given: Callable[..., None], following: Following, host: Host, tmp_path: Path
) -> None:
    given("trap 'exit 143' TERM", f"echo $$ > {tmp_path}/pid; sleep 60 & wait")
    following.until(lambda: following.state == "running" and (tmp_path / "pid").exists())
    assert host.run("klorosctl", "cancel", "1").returncode == 0
    following.until_ended()
    assert following.state == "cancelled", following.result


def test_what_somebody_cancels_in_slurm_is_told_as_that(
    given: Callable[..., None], following: Following, cluster: slurm.Slurm
) -> None:
    given("sleep 60")
    following.until(lambda: following.state == "running")
    cluster.ask("scancel", str(following.job["job_id"]))
    following.until_ended()
    assert following.state == "cancelled", following.result
    assert "in Slurm" in following.result["reason"]


def test_what_slurm_refuses_fails_with_its_words(given: Callable[..., None], following: Following, host: Host) -> None:
    host.configure('[dream.needs]\npartition = "none"\n')
    given("exit 0")
    following.until_ended()
    assert following.state == "failed", following.result
    assert "invalid partition" in following.result["reason"].lower()


def test_a_controller_that_is_away_keeps_the_cycle_waiting_with_that_reason(
    given: Callable[..., None], following: Following, cluster: slurm.Slurm, host: Host
) -> None:
    cluster.kill("slurmctld", signal.SIGTERM)
    try:
        given("exit 0")
        following.look()
        assert following.state == "queued"
        assert following.job["reason"].startswith("Slurm is out of reach")
        assert "out of reach" in host.run("klorosctl", "show", "1").stdout
        doctor = host.run("klorosctl", "doctor").stdout
        assert "cycle 1 is queued: not given to Slurm yet, Slurm is out of reach" in " ".join(doctor.split())
        assert "out of reach" in host.run("klorosctl", "status").stdout
    finally:
        cluster.start_controller()
    following.until_ended()
    assert following.state == "succeeded"


def test_a_job_outlives_a_restart_of_the_controller(
    given: Callable[..., None], following: Following, cluster: slurm.Slurm
) -> None:
    given("sleep 3")
    following.until(lambda: following.state == "running")
    cluster.kill("slurmctld", signal.SIGTERM)
    cluster.start_controller()
    following.until_ended()
    assert following.state == "succeeded"


def test_a_submission_that_died_halfway_is_found_and_not_repeated(
    given: Callable[..., None], following: Following, host: Host, cluster: slurm.Slurm, tmp_path: Path
) -> None:
    """The runner is killed when sbatch has been taken, before it could say so."""
    beside = tmp_path / "bin"
    beside.mkdir()
    (beside / "sbatch").write_text('#!/bin/sh\n/usr/bin/sbatch "$@"\nkill -9 $PPID\n')
    (beside / "sbatch").chmod(0o755)
    mark = tmp_path / "ran"
    given(f"echo once >> {mark}")
    environ = {**host.environ, "PATH": f"{beside}:{host.environ['PATH']}"}
    done = subprocess.run(host.command("run_cycle"), env=environ, capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert following.job["job_id"] is None
    following.until_ended()
    assert following.state == "succeeded"
    assert mark.read_text() == "once\n"
    assert len(cluster.ask("scontrol", "show", "job", "-o").split("Comment=kloros:1:" + _token(host))) == 2


def test_a_job_that_slurm_forgot_before_it_began_is_submitted_again(
    given: Callable[..., None], following: Following, cluster: slurm.Slurm, tmp_path: Path
) -> None:
    """A controller that is killed outright forgets what it has taken within the last seconds."""
    mark = tmp_path / "ran"
    cluster.ask("scontrol", "update", "partitionname=batch", "state=down")  # so that it does not begin
    given(f"echo once >> {mark}")
    following.until(lambda: following.job.get("job_id") is not None)
    cluster.kill("slurmctld")
    for saved in (cluster.folder / "state").glob("job_state*"):
        saved.unlink()
    cluster.start_controller()
    cluster.ask("scontrol", "update", "partitionname=batch", "state=up")
    following.until_ended()
    assert following.state == "succeeded", following.result
    assert mark.read_text() == "once\n"


def test_a_job_that_is_started_again_runs_its_command_once(
    given: Callable[..., None], following: Following, host: Host, cluster: slurm.Slurm, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    given(f"echo once >> {mark}; sleep 60")
    following.until(lambda: following.state == "running" and mark.exists())
    cluster.ask("scontrol", "update", f"jobid={following.job['job_id']}", "requeue=1")
    cluster.ask("scontrol", "requeue", str(following.job["job_id"]))
    following.until_ended()
    assert following.state == "failed", following.result
    assert "put it back into its queue" in following.result["reason"]
    assert mark.read_text() == "once\n"
    # Nothing is left in Slurm that would start again.
    cluster.wait_for(lambda: _state_of(cluster, following.job["job_id"]) == "CANCELLED", "the job's end")


@pytest.mark.parametrize("partition", ["batch", "spare"], ids=["would be requeued", "cancelled"])
@pytest.mark.parametrize("trap", ["trap 'exit 0' TERM", ":"], ids=["ends well when told to", "dies"])
def test_a_job_that_is_preempted_has_failed_for_that_reason(
    given: Callable[..., None], following: Following, cluster: slurm.Slurm, host: Host, partition: str, trap: str
) -> None:
    """A command that ends with 0 when it is told to end has not done its work."""
    host.configure(f'[dream.needs]\npartition = "{partition}"\nhosts = "node1"\n')
    given(trap, "sleep 60 & wait")
    following.until(lambda: following.state == "running")
    cluster.ask("sbatch", "--partition=urgent", "--nodelist=node1", "--exclusive", "--output=/dev/null", "--wrap=true")
    following.until_ended()
    assert following.state == "failed", following.result
    assert "higher priority" in following.result["reason"]
    assert following.result["cpu_seconds"] is not None


def test_a_job_that_a_site_lets_be_requeued_is_not_run_again(
    given: Callable[..., None], following: Following, cluster: slurm.Slurm, host: Host, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    host.configure('[dream.needs]\nhosts = "node1"\noptions = ["--requeue"]\n')
    given(f"echo once >> {mark}; sleep 60")
    following.until(lambda: following.state == "running" and mark.exists())
    cluster.ask("sbatch", "--partition=urgent", "--nodelist=node1", "--exclusive", "--output=/dev/null", "--wrap=true")
    following.until_ended()
    assert following.state == "failed", following.result
    assert "put it back into its queue" in following.result["reason"]
    assert mark.read_text() == "once\n"


def test_a_job_that_takes_more_memory_than_it_asked_for_has_failed_for_that_reason(
    given: Callable[..., None], following: Following, host: Host
) -> None:
    """Without control groups Slurm calls it FAILED, and kills its step too; only its log of the job says why."""
    host.configure('[dream.needs]\nmemory = "100M"\n')
    given("exec python3 -c 'held = bytearray(300_000_000); import time; time.sleep(60)'")
    following.until_ended()
    assert following.state == "failed", following.result
    assert "more memory than it had asked for" in following.result["reason"]
    assert following.result["wall_seconds"] is not None


def test_a_job_whose_time_in_slurm_is_over_has_timed_out(
    given: Callable[..., None], following: Following, cluster: slurm.Slurm
) -> None:
    given("trap 'exit 0' TERM", "sleep 60 & wait")
    following.until(lambda: following.state == "running")
    cluster.ask("scontrol", "update", f"jobid={following.job['job_id']}", "timelimit=0")
    following.until_ended()
    assert following.state == "timed_out", following.result
    assert "its time was over" in following.result["reason"]


def test_a_command_finds_the_gpu_that_it_was_given(given: Callable[..., None], following: Following, host: Host) -> None:
    host.configure("[dream.needs]\ngpus = 1\n")
    given('echo "GPU $CUDA_VISIBLE_DEVICES of $SLURM_JOB_GPUS"')
    following.until_ended()
    assert following.state == "succeeded", following.result
    folder = host.state / "cycles/cycle_00001"
    assert (folder / "logs/output.log").read_text() == "GPU 0 of 0\n"
    assert json.loads((folder / "manifest.json").read_text())["slurm"]["gpus"] == "gpu:1"


def test_nothing_is_decided_where_the_folder_of_its_records_is_not_shared(
    given: Callable[..., None], following: Following, host: Host, tmp_path: Path
) -> None:
    """A host that takes over, and has another `cycles_dir`, would see nothing begun, and run the command a second time."""
    mark = tmp_path / "ran"
    given(f"echo once >> {mark}; sleep 2")
    following.until(lambda: following.state == "running" and mark.exists())
    host.set(KLR_CYCLES_DIR=str(tmp_path / "of another host"))
    following.until(lambda: "is not on this host" in following.job["reason"])
    assert following.state == "running"
    assert "is not on this host" in " ".join(host.run("klorosctl", "doctor").stdout.split())
    host.set(KLR_CYCLES_DIR=str(host.state / "cycles"))
    following.until_ended()
    assert following.state == "succeeded", following.result
    assert mark.read_text() == "once\n"


def test_a_node_that_dies_loses_its_cycle(given: Callable[..., None], following: Following, cluster: slurm.Slurm) -> None:
    given("sleep 60")
    following.until(lambda: following.state == "running")
    node = following.job["nodes"]
    cluster.kill(node)
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        following.until_ended()
        assert following.state == "lost"
        assert "node failed" in following.result["reason"]
    finally:
        cluster.start_node(node)
        cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")


def _state_of(cluster: slurm.Slurm, job_id: int) -> str:
    told = cluster.ask("scontrol", "show", "job", "--oneliner", str(job_id))
    return told.partition("JobState=")[2].partition(" ")[0]


def _token(host: Host) -> str:
    with suppress(IndexError):
        return str(host.rows("SELECT token FROM cycles WHERE cycle = 1")[0][0])
    return ""
