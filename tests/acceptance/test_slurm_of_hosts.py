"""Slurm's jobs under several hosts: only who leads looks after them, and who takes over goes on where the other was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.host import Host, script
from tests.acceptance.scopes import Scoped
from tests.contract import slurm

pytestmark = pytest.mark.xdist_group("slurm")


@pytest.fixture(scope="module")
def nodes() -> Iterator[slurm.Slurm]:
    with slurm.running() as running:
        yield running


@pytest.fixture
def given(scope: Scoped, nodes: slurm.Slurm, tmp_path: Path) -> Callable[..., tuple[Host, Host]]:
    """Give D-REAM a command that Slurm runs, decided by the host `a`; `b` has its cycles in the same folder."""

    def give(*lines: str) -> tuple[Host, Host]:
        for host in (both := (scope.host("a"), scope.host("b"))):
            host.stepwise()
            host.set(
                SLURM_CONF=str(nodes.conf), KLR_DREAM_EXECUTOR="slurm", KLR_CYCLES_DIR=str(tmp_path / "shared"),
                KLR_CYCLES_TERM_GRACE="1s", KLR_SLURM_LAG="1s", KLR_SLURM_PATIENCE="20s",
                KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", lines),
            )  # fmt: skip
        both[0].promote("p")
        assert both[0].decided()["decision"] == "dream_cycle"
        return both

    return give


def look(host: Host) -> None:
    done = host.run("run_cycle")
    assert done.returncode == 0, done.stderr


def one(scope: Scoped, what: str) -> dict[str, Any]:
    (found,) = scope.ask(f"SELECT {what} FROM cycles LEFT JOIN slurm_jobs USING (cycle)")
    return found


def test_only_the_leader_gives_a_cycle_to_slurm_and_who_takes_over_sees_it_through(
    given: Callable[..., tuple[Host, Host]], scope: Scoped, nodes: slurm.Slurm, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    a, b = given(f"echo once >> {mark}; sleep 3")
    assert b.reasons() == ["standby"]
    look(b)
    assert one(scope, "job_id") == {"job_id": None}

    def runs() -> bool:
        look(a)
        return bool(one(scope, "cycles.state")["state"] == "running")

    nodes.wait_for(runs, "the job to run")
    job_id = one(scope, "job_id")["job_id"]
    assert f"Slurm job {job_id}, RUNNING" in " ".join(b.run("klorosctl", "status").stdout.split())
    scope.expire()
    assert b.decided()["decision"] == "noop"
    before = scope.ask("SELECT * FROM slurm_jobs")
    look(a)
    assert scope.ask("SELECT * FROM slurm_jobs") == before, "it leads no more"

    def ended() -> bool:
        look(b)
        return bool(one(scope, "cycles.state")["state"] == "succeeded")

    nodes.wait_for(ended, "the end")
    assert one(scope, "job_id, host") == {"job_id": job_id, "host": "a"}
    assert mark.read_text() == "once\n"
    assert json.loads((tmp_path / "shared/cycle_00001/manifest.json").read_text())["slurm"]["job_id"] == job_id


def test_two_that_led_one_after_the_other_and_both_submitted_it_run_it_once(
    given: Callable[..., tuple[Host, Host]], scope: Scoped, nodes: slurm.Slurm, tmp_path: Path
) -> None:
    """sbatch is no transaction: a leader may be paused right before it, and submit when another has done so."""
    mark = tmp_path / "ran"
    a, b = given(f"echo once >> {mark}; sleep 3")
    nodes.ask("scontrol", "update", "partitionname=batch", "state=down")  # so that neither begins yet
    look(a)
    first = one(scope, "job_id")["job_id"]
    spool = tmp_path / "shared/.slurm/00001"
    second = nodes.ask("sbatch", "--parsable", f"--output={spool}/log", str(spool / "script")).strip()
    nodes.ask("scontrol", "hold", str(first))
    nodes.ask("scontrol", "update", "partitionname=batch", "state=up")

    def ended() -> bool:
        look(a)
        return bool(one(scope, "cycles.state")["state"] in ("succeeded", "failed", "lost"))

    nodes.wait_for(ended, "the end")
    assert one(scope, "cycles.state, job_id") == {"state": "succeeded", "job_id": int(second)}
    assert mark.read_text() == "once\n"
    assert "JobState=CANCELLED" in nodes.ask("scontrol", "show", "job", "-o", str(first))
    assert b.reasons() == ["standby"]
