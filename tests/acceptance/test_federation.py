"""Cycles end, ticks settle them, and their bundles are copied; whatever the target does, no cycle fails by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.cycles import unbundling
from orchestration.exits import Exit
from tests.acceptance.host import Host, script


@pytest.fixture
def copies(host: Host, tmp_path: Path) -> Path:
    """A folder that bundles are copied to, and a D-REAM command that succeeds."""
    host.stepwise()
    host.set(
        KLR_FEDERATION_TARGET=f"file://{tmp_path}/copies",
        KLR_FEDERATION_BACKOFF="0",
        KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", ["echo done"]),
    )
    return tmp_path / "copies"


def a_cycle(host: Host, reason: str) -> None:
    host.intend("trigger_dream", reason=reason)
    host.decided()
    kick(host).unlink()
    host.run_queued()


def index(copies: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((copies / "index.json").read_text())["entries"]
    return found


def kick(host: Host) -> Path:
    return host.state / "kick" / "cycle"


def test_off_by_default(host: Host, tmp_path: Path) -> None:
    host.stepwise()
    host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", ["echo done"]))
    a_cycle(host, "1")
    assert host.rows("SELECT * FROM federations") == []
    assert "Federation is off" in host.run("klorosctl", "federation", "status").stdout
    refused = host.run("klorosctl", "federation", "retry", "1")
    assert (refused.returncode, "federation is off" in refused.stderr) == (Exit.USAGE, True)


def test_a_settled_cycle_is_copied_by_the_runner_that_the_tick_asks_for(host: Host, copies: Path) -> None:
    a_cycle(host, "1")
    assert kick(host).exists(), "the tick that settled it asks for a runner"
    assert not copies.exists()
    assert "kloros_federation_pending 1.0" in host.textfile.read_text()
    assert host.run("run_cycle").returncode == 0
    (entry,) = index(copies).values()
    assert (entry["cycle"], entry["job"], entry["state"]) == (1, "dream", "succeeded")
    name = "cycle_00001.tar.zst"
    (copies / name).write_bytes((copies / entry["bundle"]).read_bytes())
    (copies / f"{name}.sha256").write_text(f"{entry['sha256']}  {name}\n")
    assert unbundling.verify(str(copies / name)).folder == "cycle_00001"
    kick(host).unlink()
    host.decided()
    assert not kick(host).exists(), "nothing is due any more"
    assert "kloros_federation_pending 0.0" in host.textfile.read_text()
    assert 'kloros_federation_total{result="sent"} 1.0' in host.textfile.read_text()


def test_a_failure_fails_no_cycle_and_later_ticks_try_again(host: Host, copies: Path) -> None:
    copies.write_text("a file where the folder belongs")
    a_cycle(host, "1")
    assert host.run("run_cycle").returncode == 0
    assert host.rows("SELECT state FROM cycles") == [("succeeded",)]
    assert host.counter("kloros_federation_total", 'result="failed"') == 1
    status = json.loads(host.run("klorosctl", "federation", "status", "--json").stdout)
    assert [(one["cycle"], one["failures"]) for one in status["pending"]] == [(1, 1)]
    assert status["pending"][0]["error"]
    copies.unlink()
    kick(host).unlink()
    host.decided()
    assert kick(host).exists()
    assert host.run("run_cycle").returncode == 0
    assert len(index(copies)) == 1
    assert "Nothing waits" in host.run("klorosctl", "federation", "status").stdout


def test_one_that_waits_is_not_tried_before_its_time_but_by_retry(host: Host, copies: Path) -> None:
    host.set(KLR_FEDERATION_BACKOFF="1h")
    copies.write_text("a file where the folder belongs")
    a_cycle(host, "1")
    host.run("run_cycle")
    copies.unlink()
    kick(host).unlink()
    host.decided()
    assert not kick(host).exists()
    host.run("run_cycle")
    assert not copies.exists()
    assert host.run("klorosctl", "federation", "retry", "1").returncode == 0
    assert kick(host).exists()
    host.run("run_cycle")
    assert len(index(copies)) == 1
    assert host.run("klorosctl", "federation", "retry", "9").returncode == Exit.USAGE


def test_a_failed_cycle_is_copied_as_well_and_one_that_left_nothing_is_not(host: Host, copies: Path) -> None:
    host.intend("trigger_dream", reason="1")
    host.decided()
    host.run("klorosctl", "cancel", "1")
    host.run("run_cycle")
    host.decided()
    host.run("run_cycle")
    assert host.rows("SELECT * FROM federations") == []
    host.set(KLR_DREAM_COMMAND=script(copies.parent, "fail.sh", ["exit 3"]))
    a_cycle(host, "2")
    host.run("run_cycle")
    assert [(entry["cycle"], entry["state"]) for entry in index(copies).values()] == [(2, "failed")]


def direct(tmp_path: Path, *flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestration.run_cycle", "--output-root", str(tmp_path / "root"), "--job", "dream"]
    return subprocess.run(
        [*command, *flags],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "KLR_STATE_DIR": str(tmp_path / "host"),
            "KLR_DREAM_COMMAND": "true",
            "KLR_FEDERATION_TARGET": f"file://{tmp_path}/copies",
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_direct_run_copies_at_once_unless_told_not_to(tmp_path: Path) -> None:
    assert direct(tmp_path, "--cycle", "1", "--no-federate").returncode == 0
    assert not (tmp_path / "copies").exists()
    assert direct(tmp_path, "--cycle", "2").returncode == 0
    assert [entry["cycle"] for entry in index(tmp_path / "copies").values()] == [2]


def test_a_direct_run_does_not_fail_by_it_and_the_next_one_makes_up_for_it(tmp_path: Path) -> None:
    (tmp_path / "copies").write_text("a file where the folder belongs")
    done = direct(tmp_path, "--cycle", "1")
    assert done.returncode == 0
    assert "can't be copied" in done.stderr
    (tmp_path / "copies").unlink()
    assert direct(tmp_path, "--cycle", "2").returncode == 0
    assert sorted(entry["cycle"] for entry in index(tmp_path / "copies").values()) == [1, 2]
    (tmp_path / "copies").rename(tmp_path / "away")
    (tmp_path / "copies").write_text("a file where the folder belongs")
    assert direct(tmp_path, "--cycle", "3").returncode == 0
    (tmp_path / "copies").unlink()
    (tmp_path / "away").rename(tmp_path / "copies")
    assert direct(tmp_path, "--cycle", "3", "--replace", "--no-federate").returncode == 0
    assert direct(tmp_path, "--cycle", "2", "--replace").returncode == 0
    assert sorted(entry["cycle"] for entry in index(tmp_path / "copies").values()) == [1, 2, 2]
