"""The documented section for supervisord under a real supervisord, with our paths in place of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.acceptance.looping import PAUSE, Looping
from tests.acceptance.recipes import fenced
from tests.waiting import until

BIN = Path(sys.executable).parent
HANGS = "while [ ! -e go ]; do sleep 0.02; done"


class Supervisor:
    """A supervisord that has the documented program."""

    def __init__(self, looping: Looping, folder: Path) -> None:
        self._looping, self.conf = looping, folder / "supervisord.conf"
        section = fenced("ini")
        for theirs, ours in (
            ("/opt/kloros/bin/python", sys.executable),
            ("/srv/agent", str(looping.tree)),
            ("user=kloros", f"user={getpass.getuser()}"),
        ):
            assert theirs in section
            section = section.replace(theirs, ours)
        self.conf.write_text(
            f"[unix_http_server]\nfile={folder}/sock\n"
            f"[supervisord]\nlogfile={folder}/log\npidfile={folder}/pid\nchildlogdir={folder}\nnodaemon=true\n"
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{folder}/sock\n{section}"
        )
        self._log = folder / "log"

    @contextmanager
    def running(self) -> Iterator[None]:
        environ = {name: value for name, value in self._looping.host.environ.items() if name != "KLR_ORCHESTRATION_MODE"}
        command = [str(BIN / "supervisord"), "-c", str(self.conf)]
        process = subprocess.Popen(
            command, env=environ, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            (self._looping.tree / "go").touch()
            process.terminate()
            process.wait(60)

    def control(self, *words: str) -> str:
        done = subprocess.run(
            [BIN / "supervisorctl", "-c", self.conf, *words], capture_output=True, text=True, check=False, timeout=120
        )
        return done.stdout

    def state(self) -> str:
        """Return what supervisord calls the state of the loop."""
        return (self.control("status", "kloros-loop").split() or ["", ""])[1]

    def starts(self) -> int:
        return self._log.read_text().count("spawned: 'kloros-loop'")


@pytest.fixture
def looping(host: Host) -> Looping:
    return Looping(host)


@pytest.fixture
def supervisor(looping: Looping) -> Iterator[Supervisor]:
    folder = Path(tempfile.mkdtemp(prefix="klr-"))  # a socket's path is short
    yield Supervisor(looping, folder)
    shutil.rmtree(folder)


def test_it_starts_the_loop_and_starts_it_again_when_it_was_killed(looping: Looping, supervisor: Supervisor) -> None:
    looping.host.set(RUN_CYCLE_COMMAND=looping.command(HANGS), RUN_CYCLE_MAX_BACKOFF="0")
    with supervisor.running():
        looping.waits_for("running")
        assert supervisor.state() == "RUNNING"
        killed = int(looping.latest()["pid"])
        os.kill(killed, 9)
        until(lambda: supervisor.starts() == 2, "it is started again")
        until(lambda: looping.latest()["pid"] != killed and looping.latest()["state"] == "running", "it works again")
        assert looping.statuses() == ["lost"]


def test_it_leaves_the_loop_down_at_its_failure_limit(looping: Looping, supervisor: Supervisor) -> None:
    looping.host.set(RUN_CYCLE_COMMAND="false", RUN_CYCLE_MAX_FAILURES="1")
    with supervisor.running():
        until(lambda: supervisor.state() == "EXITED", "the loop has given up")
        PAUSE.wait(2.5)  # supervisord looks every second
        assert (supervisor.state(), supervisor.starts(), looping.statuses()) == ("EXITED", 1, ["failed"])


def test_it_leaves_the_loop_down_with_wrong_settings(looping: Looping, supervisor: Supervisor) -> None:
    """That answer comes within the second in which supervisord, by its default, takes any end for a failed start."""
    looping.host.set(RUN_CYCLE_TIMEOUT="never")
    with supervisor.running():
        until(lambda: supervisor.state() == "EXITED", "the loop has refused")
        PAUSE.wait(2.5)
        assert (supervisor.state(), supervisor.starts()) == ("EXITED", 1)
    assert looping.loop().returncode == Exit.SETTINGS_INVALID


def test_stopping_lets_the_cycle_finish(looping: Looping, supervisor: Supervisor) -> None:
    looping.host.set(RUN_CYCLE_COMMAND=looping.command(HANGS))
    with supervisor.running():
        looping.waits_for("running")
        stopping = subprocess.Popen(
            [BIN / "supervisorctl", "-c", supervisor.conf, "stop", "kloros-loop"], stdout=subprocess.DEVNULL
        )
        until(lambda: supervisor.state() == "STOPPING", "it is told to stop")
        PAUSE.wait(0.7)  # longer than the runner needs to see a cancellation
        assert looping.rows() == []
        (looping.tree / "go").touch()
        assert stopping.wait(30) == 0
        assert supervisor.state() == "STOPPED"
        assert (looping.statuses(), supervisor.starts()) == (["degraded"], 1)
