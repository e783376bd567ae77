"""A work tree in which the continuous loop runs, and the loop as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.host import Host, script
from tests.waiting import until

PAUSE = threading.Event()


class Looping:
    """A host whose loop runs in `tree`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.tree = host.home / "tree"
        self.tree.mkdir()
        self.archives = self.tree / "state" / "planner_digest_archives"
        self.archives.mkdir(parents=True)
        self.logs = self.tree / "logs" / "run_cycle"
        self.history = self.tree / "state" / "run_cycle_history.jsonl"
        self.errors = host.home / "loop.err"
        host.set(PYTHONPATH=str(Path(__file__).parents[2]), KLR_CYCLES_TERM_GRACE="0.5s")

    def command(self, *lines: str, name: str = "job.sh") -> str:
        """Write a command of these shell lines."""
        return script(self.tree, name, lines)

    def good(self) -> str:
        """Write a command that leaves a new archive."""
        return self.command('echo "$RUN_CYCLE_ITERATION" > state/planner_digest_archives/a$RUN_CYCLE_ITERATION')

    def arguments(self, *flags: str) -> list[str]:
        """Return the command line of the loop."""
        return [*self.host.command("run_loop"), *flags]

    def loop(self, *flags: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run the loop to its end."""
        return subprocess.run(
            self.arguments(*flags),
            env=self.host.environ,
            cwd=self.tree,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    @contextmanager
    def running(self, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
        """Have a loop run, its stderr in `errors`; whatever is left of it at the end is killed."""
        with open(self.errors, "wb") as errors:
            process = subprocess.Popen(
                self.arguments(*flags),
                env=self.host.environ,
                cwd=self.tree,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()

    def rows(self) -> list[dict[str, Any]]:
        """Return the history; every line of it must be whole."""
        return [json.loads(line) for line in self.history.read_text().splitlines()] if self.history.exists() else []

    def terminated_rows(self) -> list[dict[str, Any]]:
        """Return the history as one who reads it while it grows does: a line counts from its line break on."""
        lines = self.history.read_text().splitlines(keepends=True) if self.history.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def statuses(self) -> list[str]:
        """Return the statuses of the history."""
        return [row["status"] for row in self.rows()]

    def latest(self) -> dict[str, Any]:
        """Return `latest.json`, which must be whole; empty when there is none yet."""
        path = self.logs / "latest.json"
        content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return content

    def waits_for(self, state: str) -> None:
        """Wait until the loop says that it is in a state."""
        until(lambda: self.latest().get("state") == state, f"latest.json says {state}")


def mentions(text: str) -> list[int]:
    """Return the processes whose command line has a text."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                words = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in words:
                found.append(int(entry))
    return found
