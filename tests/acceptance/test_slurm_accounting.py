"""What Slurm's accounting adds, with a real slurmdbd: ends that the controller forgot, and what a killed job used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.cycles.slurm.commands import Slurm, SlurmAway
from tests.acceptance.host import Host, script
from tests.contract import slurm

pytestmark = pytest.mark.xdist_group("slurm")


@pytest.fixture(scope="module")
def nodes() -> Iterator[slurm.Slurm]:
    with slurm.running(1, accounting=True) as running:
        yield running


@pytest.fixture
def commands(nodes: slurm.Slurm) -> Slurm:
    return Slurm(nodes.environ)


def submit(nodes: slurm.Slurm, commands: Slurm, folder: Path, text: str) -> int:
    batch = folder / "batch"
    batch.write_text(f"#!/bin/sh\n{text}\n")
    job_id = commands.submit((f"--output={folder}/out", "--no-requeue", "--gpus=1"), str(batch))
    nodes.wait_for(lambda: getattr(commands.job(job_id), "state", "") == "RUNNING", "it to run")
    return job_id


def forget(nodes: slurm.Slurm) -> None:
    """Have the controller begin anew, without memory: jobs that it had ended are known to accounting alone."""
    nodes.kill("slurmctld")
    for saved in (nodes.folder / "state").glob("job_state*"):
        saved.unlink()
    nodes.start_controller()


def test_a_job_that_the_controller_forgot_is_known_by_what_was_accounted(
    nodes: slurm.Slurm, commands: Slurm, tmp_path: Path
) -> None:
    job_id = submit(nodes, commands, tmp_path, "sleep 1; exit 3")

    def is_accounted() -> bool:
        found = commands.accounts(job_id)
        return found is not None and found.state == "FAILED" and found.peak_bytes is not None

    nodes.wait_for(is_accounted, "its accounts")
    forget(nodes)
    seen = commands.job(job_id)
    assert seen is not None
    assert (seen.state, seen.nodes, seen.gpus) == ("FAILED", "node0", "gres/gpu=1")
    assert seen.wall_seconds is not None
    assert seen.cpu_seconds is not None
    assert commands.job(job_id + 1000) is None


def test_accounting_that_is_away_is_told_apart_from_none_that_is_kept(
    nodes: slurm.Slurm, commands: Slurm, tmp_path: Path
) -> None:
    job_id = submit(nodes, commands, tmp_path, "sleep 60")
    nodes.kill("slurmdbd")
    try:
        with pytest.raises(SlurmAway):
            commands.accounts(job_id)
        seen = commands.job(job_id)
        assert seen is not None, "the controller still tells of it"
        assert seen.state == "RUNNING"
    finally:
        nodes.start_accounting()
        commands.cancel(job_id)

        def is_told() -> bool:
            found = commands.accounts(job_id)
            return found is not None and found.is_whole

        nodes.wait_for(is_told, "the controller to tell accounting what it has missed")


def test_what_a_killed_cycle_used_is_in_its_manifest(host: Host, nodes: slurm.Slurm, tmp_path: Path) -> None:
    """Its step was killed with it and measured nothing; accounting did."""
    host.stepwise()
    host.set(SLURM_CONF=str(nodes.conf), KLR_DREAM_EXECUTOR="slurm", KLR_SLURM_LAG="3s", KLR_DREAM_BACKOFF="0")
    host.configure('[dream.needs]\nmemory = "100M"\ngpus = 1\n')
    greedy = "held = bytearray(300_000_000)\nwhile True: pass"
    host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", [f"exec python3 -c '{greedy}'"]))
    host.promote("p")
    assert host.decided()["decision"] == "dream_cycle"

    def ended() -> bool:
        assert host.run("run_cycle").returncode == 0
        return host.rows("SELECT state FROM cycles") == [("failed",)]

    nodes.wait_for(ended, "the end")
    manifest = json.loads((host.state / "cycles/cycle_00001/manifest.json").read_text())
    assert "more memory than it had asked for" in manifest["result"]["reason"]
    assert manifest["resources"]["wall_seconds"] >= 1
    assert manifest["resources"]["cpu_seconds"] > 0
    assert manifest["resources"]["peak_bytes"] > 100_000_000
    assert manifest["host"] == manifest["slurm"]["nodes"] == "node0"
    assert manifest["slurm"]["gpus"] == "gpu:1"
