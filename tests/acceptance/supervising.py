"""A running supervisor for acceptance tests, with an agent that is a program."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.host import PYTHON, Host

ROOT = Path(__file__).parents[2]


def agent(place: str, turns: Path, name: str = "reviewer") -> str:
    """Give the settings of an agent that is `agent_of_paper.py`; it notes its turns in a file."""
    program = [
        "/usr/bin/env",
        f"PYTHONPATH={ROOT}",
        PYTHON,
        "-m",
        "tests.acceptance.agent_of_paper",
        place,
        str(turns),
        name,
    ]
    spawn, resume = json.dumps(program), json.dumps([*program, "{session}"])
    return f'\n[agents.{name}]\nruntime = "command"\nspawn = {spawn}\nresume = {resume}\ntimeout = "60s"\n'


class Supervising:
    """One supervisor process."""

    def __init__(self, host: Host, *arguments: str, **variables: str) -> None:
        command = [PYTHON, "-P", "-m", "orchestration.supervise", *arguments]
        environ = {**host.environ, "PYTHONPATH": str(ROOT), **variables}
        self.process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def log(self, event: str) -> list[dict[str, Any]]:
        """What it has logged under an event's name."""
        found = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    def stop(self, within: float = 15) -> int:
        """Ask it to end; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.decode().rstrip("\n"))


@contextmanager
def supervising(host: Host, *arguments: str, **variables: str) -> Iterator[Supervising]:
    """Run a supervisor until the block ends."""
    running = Supervising(host, *arguments, **variables)
    try:
        yield running
    finally:
        running.kill()


__all__ = ["Supervising", "agent", "supervising"]
