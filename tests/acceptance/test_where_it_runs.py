"""Where a cycle runs, of several hosts over one PostgreSQL: on a host that its job names, and that is large enough."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.acceptance.host import Host, script
from tests.acceptance.scopes import Scoped
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("postgres")


def only_on(host: Host, names: str) -> None:
    host.configure(f'[dream.needs]\nhosts = "{names}"\n')


def test_a_cycle_is_run_by_the_host_that_it_names_and_the_leader_leaves_it_alone(scope: Scoped, tmp_path: Path) -> None:
    a, b = scope.host("a"), scope.host("b")
    mark = tmp_path / "ran"
    for host in (a, b):
        host.stepwise()
        only_on(host, "b")
        host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", [f"echo $KLR_STATE_DIR >> {mark}"]))
    b.decided()
    scope.expire()
    a.promote("p")
    assert a.decided()["decision"] == "dream_cycle"
    assert a.run("run_cycle").returncode == 0
    assert scope.ask("SELECT state, host, hosts FROM cycles") == [{"state": "queued", "host": "", "hosts": '["b"]'}]
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for command in (("klorosctl", "explain"), ("klorosctl", "status"), ("klorosctl", "show", "1"), ("klorosctl", "doctor")):
        said = " ".join(a.run(*command).stdout.split())
        assert f"queued for host b; none has ticked since it was queued: b ticked last {today}" in said, said
    assert b.reasons() == ["standby"]
    b.run_queued()
    assert mark.read_text() == f"{b.state}\n"
    assert scope.ask("SELECT state, host FROM cycles") == [{"state": "succeeded", "host": "b"}]
    assert json.loads((b.state / "cycles/cycle_00001/manifest.json").read_text())["state"] == "succeeded"
    assert not (a.state / "cycles/cycle_00001").exists()


def test_a_host_that_does_not_run_a_cycle_does_not_take_it_for_lost_and_has_it_ended_where_it_runs(
    scope: Scoped, tmp_path: Path
) -> None:
    a, b = scope.host("a"), scope.host("b")
    started = tmp_path / "started"
    a.stepwise()
    for host in (a, b):
        only_on(host, "b")
        host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", [f"echo >{started}", "exec sleep 600"]))
    a.promote("p")
    assert a.decided()["decision"] == "dream_cycle"
    assert b.reasons() == ["standby"]
    until(started.exists, what="the cycle runs on b")
    assert a.decided()["decision"] == "noop"
    assert scope.ask("SELECT state, host FROM cycles") == [{"state": "running", "host": "b"}]
    shown = " ".join(a.run("klorosctl", "status").stdout.split())
    assert ", on b" in shown
    assert "no runner lives" not in shown
    said = json.loads(a.run("klorosctl", "cancel", "1", "--json").stdout)
    assert (said["outcome"], "where it runs" in said["message"]) == ("asked", True)
    until(lambda: scope.ask("SELECT state FROM cycles") == [{"state": "cancelled"}], what="b has ended it")
    until(lambda: not b.processes(), what="its runner ends")


def test_a_machine_that_is_too_small_leaves_it_to_others_and_says_so(scope: Scoped, tmp_path: Path) -> None:
    a, b = scope.host("a"), scope.host("b")
    for host in (a, b):
        host.stepwise()
        host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", ["exit 0"]))
    a.configure("[dream.needs]\ncpus = 4096\n")  # as if b had so many
    a.promote("p")
    assert a.decided()["decision"] == "dream_cycle"
    assert a.run("run_cycle").returncode == 0
    assert scope.ask("SELECT state FROM cycles") == [{"state": "queued"}]
    assert "not a: [dream.needs] asks for 4096 processors" in " ".join(a.run("klorosctl", "status").stdout.split())
    b.run_queued()
    assert scope.ask("SELECT state, host FROM cycles") == [{"state": "succeeded", "host": "b"}]


def test_the_only_machine_fails_what_is_too_large_for_it_at_once(host: Host, tmp_path: Path) -> None:
    """Nobody else could ever run it, and while it waited nothing else would start."""
    host.stepwise()
    mark = tmp_path / "ran"
    host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", [f"touch {mark}"]))
    host.configure('[dream.needs]\nmemory = "900T"\n')
    host.promote("p")
    host.decided()
    host.run_queued()
    ((state, result),) = host.rows("SELECT state, result FROM cycles")
    assert state == "failed"
    told = json.loads(result)
    assert told["reason"].startswith("this host can't run it: [dream.needs] asks for 900T of memory, it has ")
    assert told["not_started"]
    assert not mark.exists()
    doctor = " ".join(host.run("klorosctl", "doctor").stdout.split())
    assert "[dream.needs] asks for 900T of memory" in doctor
    assert "every cycle of it fails" in doctor


def test_hosts_of_a_scope_need_a_scope(host: Host) -> None:
    host.configure('[phase.needs]\nhosts = "lab-1"\n')
    done = host.tick()
    assert done.returncode == 78
    assert "hosts names hosts of a scope" in done.stderr
    host.set(KLR_PHASE_EXECUTOR="slurm")
    assert host.tick().returncode == 0
