"""`run_cycle --cycle N --output-root DIR`: one cycle without an orchestrator, by the runner that ticks start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.cycles import bundle
from orchestration.exits import Exit
from orchestration.host import clock
from orchestration.host.lock import FileLock
from orchestration.phase.epoch import epoch_id
from tests.acceptance.host import script
from tests.waiting import until

REPORT = 'echo "{}" > artifacts/report.json'


class Root:
    """An output root, and the command line on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "root"
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(home), "KLR_STATE_DIR": str(home / "host")}

    def command(self, *lines: str, job: str = "PHASE") -> None:
        self.environ[f"KLR_{job}_COMMAND"] = script(self.home, f"{job}.sh", lines)

    def arguments(self, *flags: str) -> list[str]:
        return [sys.executable, "-m", "orchestration.run_cycle", "--output-root", str(self.path), *flags]

    def run(self, *flags: str, code: int = Exit.DONE) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.arguments(*flags), env=self.environ, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == code, done.stderr
        return done

    def manifest(self, folder: str = "cycle_00001") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / folder / "manifest.json").read_text())
        return found

    @property
    def lock(self) -> FileLock:
        return FileLock(str(self.path / ".kloros" / "locks" / "direct.lock"))

    def folders(self) -> list[str]:
        return sorted(name for name in os.listdir(self.path) if name.startswith("cycle_"))


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_a_cycle_with_its_folder_and_bundle_and_nothing_elsewhere(root: Root) -> None:
    root.command(REPORT, 'echo "$CYCLE_ID $KLR_CYCLE"')
    told = json.loads(root.run("--cycle", "7", "--no-federate", "--json").stdout)
    assert sorted(os.listdir(root.path)) == [".kloros", "cycle_00007", "out"]
    manifest = root.manifest("cycle_00007")
    assert (manifest["cycle"], manifest["job"], manifest["state"]) == (7, "phase", "succeeded")
    assert manifest["origin"]["cause"] == "direct"
    assert (root.path / "cycle_00007" / "logs" / "output.log").read_text() == "7 7\n"
    assert told["folder"] == str(root.path / "cycle_00007")
    assert bundle.verify(told["bundle"]).sha256 == told["sha256"]
    assert not (root.home / "host").exists()


def test_the_job_that_comes_with_us(root: Root) -> None:
    """What CI does in a bare environment: no settings, no command of its own."""
    root.run("--cycle", "1", "--no-federate", "--job", "dream")
    assert root.manifest()["state"] == "succeeded"


def test_the_variable_sets_the_number_and_the_flag_beats_it(root: Root) -> None:
    root.command(REPORT)
    root.environ["CYCLE_ID"] = "00005"
    root.run()
    root.run("--cycle", "6")
    assert root.folders() == ["cycle_00005", "cycle_00006"]


@pytest.mark.parametrize(
    ("lines", "more", "code", "state"),
    [
        (["exit 3"], {}, Exit.PHASE_FAILED, "failed"),
        (["exit 0"], {}, Exit.PHASE_FAILED, "failed"),
        (["sleep 60"], {"KLR_PHASE_TIMEOUT": "0.3"}, Exit.PHASE_TIMED_OUT, "timed_out"),
    ],
    ids=["fails", "leaves no report", "passes its deadline"],
)
def test_what_ends_badly(root: Root, lines: list[str], more: dict[str, str], code: Exit, state: str) -> None:
    root.command(*lines)
    root.environ.update(more)
    root.run("--cycle", "1", code=code)
    assert root.manifest()["state"] == state
    assert len(os.listdir(root.path / "out")) == 2


def test_no_run_is_judged_by_what_another_one_of_the_same_second_has_left(root: Root) -> None:
    root.command(REPORT)
    root.run("--cycle", "1")
    signals = root.path / ".kloros" / "signals"
    (left,) = (json.loads(path.read_text()) for path in signals.iterdir())
    for second in range(3):
        epoch = epoch_id(clock.now() + timedelta(seconds=second))
        (signals / f"klr_phase_complete_{epoch}.json").write_text(json.dumps({**left, "epoch_id": epoch}))
    root.command("exit 0")
    root.run("--cycle", "2", code=Exit.PHASE_FAILED)
    assert root.manifest("cycle_00002")["state"] == "failed"


def test_a_number_is_used_once(root: Root) -> None:
    root.command(REPORT, "echo first > artifacts/mark")
    root.run("--cycle", "1")
    root.command("exit 1")
    said = root.run("--cycle", "1", code=Exit.USAGE)
    assert "cycle 1 was run before (succeeded)" in said.stderr
    assert "--resume" in said.stderr
    assert root.folders() == ["cycle_00001"]
    assert (root.path / "cycle_00001" / "artifacts" / "mark").read_text() == "first\n"


def test_a_folder_without_a_row_counts_too(root: Root) -> None:
    root.command(REPORT)
    (root.path / "cycle_00001").mkdir(parents=True)
    root.run("--cycle", "1", code=Exit.USAGE)
    root.run("--cycle", "1", "--replace")
    assert root.folders() == ["cycle_00001", "cycle_00001.1"]


def test_replaced_begins_with_nothing_and_keeps_the_old(root: Root) -> None:
    root.command(REPORT, "ls artifacts; date +%N > artifacts/mark")
    root.run("--cycle", "1")
    first = (root.path / "cycle_00001" / "manifest.json").read_bytes()
    root.run("--cycle", "1", "--replace")
    root.run("--cycle", "1", "--replace")
    assert root.folders() == ["cycle_00001", "cycle_00001.1", "cycle_00001.2"]
    assert (root.path / "cycle_00001.1" / "manifest.json").read_bytes() == first
    assert (root.path / "cycle_00001" / "logs" / "output.log").read_text() == "report.json\n"
    assert root.manifest()["origin"]["resumes"] is False


def test_resumed_begins_with_the_artifacts_of_the_old(root: Root) -> None:
    root.command("mkdir artifacts/deep", "echo half > artifacts/deep/work", "ln -s deep artifacts/link", "exit 9")
    root.run("--cycle", "1", code=Exit.PHASE_FAILED)
    root.command(REPORT, "cat artifacts/link/work", 'echo "$KLR_RESUMES"')
    root.run("--cycle", "1", "--resume")
    assert root.folders() == ["cycle_00001", "cycle_00001.1"]
    said = (root.path / "cycle_00001" / "logs" / "output.log").read_text()
    assert said == f"half\n{root.path}/cycle_00001.1\n"
    assert root.manifest()["origin"]["resumes"] is True
    assert "KLR_RESUMES" in root.manifest()["environment"]
    assert root.manifest("cycle_00001.1")["state"] == "failed"


def test_resumed_without_anything_to_resume(root: Root) -> None:
    root.command(REPORT)
    root.run("--cycle", "3", "--resume")
    assert root.folders() == ["cycle_00003"]
    assert "KLR_RESUMES" not in root.manifest("cycle_00003")["environment"]


def test_killed_and_run_again(root: Root) -> None:
    root.command("echo half > artifacts/work", "echo standing", "sleep 600")
    with subprocess.Popen(root.arguments("--cycle", "1"), env=root.environ, stderr=subprocess.DEVNULL) as runner:
        output = root.path / "cycle_00001" / "logs" / "output.log"
        until(lambda: output.exists() and output.read_text())
        runner.kill()
    root.command(REPORT, "cat artifacts/work")

    def ended() -> bool:
        done = subprocess.run(
            root.arguments("--cycle", "1", "--resume"), env=root.environ, capture_output=True, check=False, timeout=60
        )
        assert done.returncode in (Exit.DONE, Exit.LOCK_HELD), done.stderr
        return done.returncode == Exit.DONE

    until(ended)
    assert output.read_text() == "half\n"
    assert root.manifest()["state"] == "succeeded"


def test_a_second_run_under_the_same_root_is_turned_away(root: Root) -> None:
    root.command("echo standing", "sleep 600")
    with subprocess.Popen(root.arguments("--cycle", "1"), env=root.environ, stderr=subprocess.DEVNULL) as runner:
        output = root.path / "cycle_00001" / "logs" / "output.log"
        until(lambda: output.exists() and output.read_text())
        root.run("--cycle", "2", code=Exit.LOCK_HELD)
        assert not root.lock.is_free()
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(30) == Exit.PHASE_FAILED
    assert root.manifest()["state"] == "cancelled"
    assert root.folders() == ["cycle_00001"]


def test_the_root_is_held_also_while_no_command_runs(root: Root) -> None:
    """Between queueing and claiming, and while the bundle is made, no runner holds its lock."""
    root.command(REPORT)
    root.run("--cycle", "1")
    with root.lock.held("test"):
        root.run("--cycle", "2", code=Exit.LOCK_HELD)
        root.run("--cycle", "1", "--replace", code=Exit.LOCK_HELD)
    assert root.folders() == ["cycle_00001"]
    root.run("--cycle", "2")


def test_the_kill_switch_counts_and_the_mode_does_not(root: Root) -> None:
    root.command(REPORT)
    (root.home / "host").mkdir()
    (root.home / "host" / "killswitch").touch()
    root.run("--cycle", "1", code=Exit.HALTED)
    assert not root.path.exists()


@pytest.mark.parametrize("flags", [("--cycle", "1"), ("--resume",), ("--job", "phase"), ("--no-federate",)])
def test_flags_that_need_a_root(root: Root, flags: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "orchestration.run_cycle", *flags]
    done = subprocess.run(command, env=root.environ, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.USAGE
    assert "needs --output-root" in done.stderr


@pytest.mark.parametrize("flags", [(), ("--cycle", "0"), ("--cycle", "x"), ("--cycle", "1", "--resume", "--replace")])
def test_a_number_is_needed(root: Root, flags: tuple[str, ...]) -> None:
    root.run(*flags, code=Exit.USAGE)
    assert not root.path.exists()


TAKE = """
import os, sys, json, shutil, tempfile, pwd
from orchestration import run_cycle
from orchestration.cycles import direct
from orchestration.host import files, trust
run_cycle._take_root(sys.argv[1])
print(os.geteuid(), os.stat(sys.argv[1]).st_uid)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root's privileges")
def test_root_becomes_the_owner_of_the_output_root() -> None:
    """Without a cycle: this interpreter may lie where only root can read, and what it imports later would not be found."""
    with tempfile.TemporaryDirectory() as home:  # pytest's own folders let nobody else in
        os.chown(home, 65534, 65534)
        for place in (home, f"{home}/new/deeper"):
            done = subprocess.run([sys.executable, "-c", TAKE, place], capture_output=True, text=True, check=False)
            assert (done.stdout, done.stderr) == ("65534 65534\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_refuses_what_others_could_exchange(root: Root) -> None:
    root.path = root.home / "theirs" / "root"
    root.path.mkdir(parents=True)
    os.chown(root.path.parent, 65534, 65534)
    assert f"{root.path.parent} belongs to user 65534" in root.run("--cycle", "1", code=Exit.USAGE).stderr
    root.path = root.home / "open"
    root.path.mkdir()
    root.path.chmod(0o777)
    assert "others may write" in root.run("--cycle", "1", code=Exit.USAGE).stderr
    assert list(root.path.iterdir()) == []
