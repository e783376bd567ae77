"""A page of docs/runbooks as a test reads it: the commands of its sections, run as they stand there, and what they are shown
to print. The page's paths become those of the test's host; `systemctl` is played by the test."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.host import PYTHON, Host

FOLDER = Path(__file__).parents[2] / "docs" / "runbooks"
HEADINGS = ["Symptom", "What it means", "How to confirm", "How to mend", "How to undo", "When to escalate"]
_CHANGING = re.compile(r"[0-9a-f]{64}|\d+(\.\d+)?\s?(s|min|h|d)\b( \d+\s?(s|min|h)\b)?|\d[\d.:TZ-]*|[-\s]+")


class Command(NamedTuple):
    """One line after `$`, and the lines that the page shows below it."""

    line: str
    shown: tuple[str, ...]


class Runbook:
    """One page."""

    def __init__(self, name: str) -> None:
        self.path = FOLDER / f"{name}.md"
        self.text = self.path.read_text()

    @property
    def headings(self) -> list[str]:
        return re.findall(r"^## (.+)$", self.text, re.MULTILINE)

    def commands(self, heading: str) -> list[Command]:
        """Return the commands of a section, in order."""
        section = self.text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        found: list[Command] = []
        for line in "\n".join(re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)).splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:], ()))
            elif line:
                found[-1] = found[-1]._replace(shown=(*found[-1].shown, line))
        return found

    def follow(
        self,
        host: Host,
        heading: str,
        systemctl: Mapping[str, Callable[[], object]] | None = None,
        *,
        cwd: Path | None = None,
    ) -> None:
        """Run every command of a section."""
        commands = self.commands(heading)
        assert commands, f"{self.path.name} has no command under {heading!r}"
        for command in commands:
            if command.line.startswith("systemctl "):
                assert systemctl, command.line
                systemctl[command.line]()
            else:
                self.run(host, command, cwd=cwd)

    def run(self, host: Host, command: Command, *, cwd: Path | None = None) -> None:
        """Run one command; it must print what the page shows, whatever its numbers."""
        printed = _printed(host, command.line, cwd)
        missing = [line for line in command.shown if _shape(line) not in _shape(printed)]
        assert missing == [], f"{command.line} printed\n{printed}"


def _printed(host: Host, line: str, cwd: Path | None) -> str:
    """Run one line of the page in a shell, on this host; its output, with the page's paths."""
    places = {"/var/lib/prometheus/node-exporter": str(host.textfile.parent), "/var/lib/kloros": str(host.state)}
    places["/srv"] = str(host.home)
    here = re.sub(r"\bklorosctl\b", f"{PYTHON} -m orchestration.klorosctl", line)
    for shown, real in places.items():
        here = here.replace(shown, real)
    environ = {"PYTHONPATH": str(FOLDER.parents[1]), **host.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["sh", "-c", here], env=environ, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    printed = done.stdout + done.stderr
    for shown, real in places.items():
        printed = printed.replace(real, shown)
    return printed


def _shape(text: str) -> str:
    """Leave out what is different each time: numbers, times, checksums, and how wide columns are."""
    return _CHANGING.sub(" ", text).replace("…", "")
