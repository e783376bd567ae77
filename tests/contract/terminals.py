"""Agents in real terminals, on a tmux server of the test's own, started as an operator starts them."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestration.bridge.state import Session
from orchestration.bridge.wake.places import Place, Places
from orchestration.bridge.wake.runtimes.tmux import Tmux
from orchestration.bridge.wire import ManagementMode, SessionStatus
from tests.waiting import until

# Stands in for an agent's TUI: takes bracketed pastes, keeps every byte it is given, shows what is printable.
LISTENER = """
import os, sys, tty
heard = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
tty.setraw(0)
os.write(1, b"\\x1b[?2004hready> ")
os.write(heard, b"")
while data := os.read(0, 65536):
    os.write(heard, data)
    os.write(1, bytes(one for one in data if 32 <= one < 127))
"""


class Terminals:
    """A host with agents in terminals."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = home / "s"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "KLR_CONFIG": str(home / "orchestrator.toml"),
            "KLR_STATE_DIR": str(self.state),
            "KLR_ORCHESTRATION_MODE": "enabled",
            "KLR_TEXTFILE": str(home / "kloros.prom"),
            "KLR_CYCLES_TERM_GRACE": "0.5s",
        }
        (home / "orchestrator.toml").write_text("")
        self.places = Places(str(self.state))
        self.tmux = Tmux(self.places)

    def klorosctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orchestration.klorosctl", *words],
            env=self.environ,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *command: str, agent: str = "reviewer") -> Place:
        done = self.klorosctl("agent", "start", "--agent", agent, "--runtime", "command", "--json", "--", *command)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        place = self.places.of_agent(agent)
        assert place is not None
        assert place.session_id == told["session_id"]
        return place

    def listen(self, *, agent: str = "reviewer") -> Place:
        """Start an agent that hears everything, and is ready."""
        place = self.start(sys.executable, "-S", "-c", LISTENER, str(self.home / "heard"), agent=agent)
        until(lambda: "ready>" in self.shown(place), "the program is ready")
        return place

    def heard(self) -> bytes:
        path = self.home / "heard"
        return path.read_bytes() if path.exists() else b""

    def ask(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-S", self.places.socket, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shown(self, place: Place) -> str:
        return self.ask("capture-pane", "-p", "-t", place.pane)

    @contextmanager
    def attached(self, place: Place, *options: str) -> Iterator[int]:
        """Attach a person: gives the descriptor of the keyboard."""
        pid, keyboard = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm"
            words = ["tmux", "-S", self.places.socket, "attach-session", *options, "-t", place.tmux_session]
            os.execvp(words[0], words)
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                if select.select([keyboard], [], [], 0.05)[0]:
                    with suppress(OSError):
                        os.read(keyboard, 65536)

        eyes = threading.Thread(target=watch)
        eyes.start()
        try:
            until(lambda: self.ask("list-clients", "-t", place.tmux_session).strip(), "the person is there")
            yield keyboard
        finally:
            stop.set()
            eyes.join()
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(keyboard)

    def end(self) -> None:
        for place in list(self.places.all()):
            with suppress(ProcessLookupError):
                os.kill(place.keeper, signal.SIGTERM)
        subprocess.run(["tmux", "-S", self.places.socket, "kill-server"], capture_output=True, check=False)
        until(lambda: not any(place.keeper_lives for place in self.places.all()), "every keeper is gone")


def session_of(place: Place, *, mode: ManagementMode = ManagementMode.MANAGED) -> Session:
    return Session(
        workspace_id=place.workspace,
        agent_id=place.agent,
        session_id=place.session_id,
        runtime=place.runtime,
        management_mode=mode,
        resumable=place.resumable,
        status=SessionStatus.IDLE,
        heartbeat_at=datetime.now(UTC),
    )
