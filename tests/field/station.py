"""A host of the field: a machine with a state folder, a clock of its own, and what starts ticks and runners there.

Its state folder survives when its power is cut, as a disk does. Ticks and runners are started one by one by a test, or by
`ticker.py`, which does what the units do: a tick each moment, a runner when a kick asks for one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.host import Host
from tests.acceptance.moved_clock import library
from tests.field.network import Machine

_TICKER = str(Path(__file__).with_name("ticker.py"))


class Station(Host):
    """One host."""

    def __init__(self, machine: Machine, home: Path, *, program: Path | None = None) -> None:
        """Take the machine and the folder that is its disk; `program` is where another release of the program lies."""
        super().__init__(home)
        self.machine = machine
        self.name = machine.name
        self._clock = home / "clock"
        self.move_clock("+0")
        self.launches_by_kick()
        self.told = home / "ticker.jsonl"
        self.set(KLR_SCOPE_HOST=machine.name, TZ="UTC", PYTHONPATH=str(program or Path(__file__).parents[2]))

    def launches_by_kick(self) -> None:
        """Let ticks and runners start each other by kicks, which the ticker sees to."""
        (self.state / "kick").mkdir(parents=True, exist_ok=True)
        self.set(KLR_LAUNCHER="systemd")

    def move_clock(self, offset: str) -> None:
        """Set its wall clock to this much off the true one: `-3600`, `+1h`; its monotonic clock goes on."""
        self._clock.write_text(f"{offset}\n")

    @property
    def moved(self) -> dict[str, str]:
        """The variables by which every process reads the host's own clock."""
        return {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def run(
        self, *arguments: str, timeout: float = 60, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run an entry there, to its end."""
        return self.machine.run(
            *self.command(*arguments), environ=self.environ | self.moved | dict(environ or {}), timeout=timeout
        )

    def begin(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start an entry there; `before` is a command that runs it, as strace does."""
        return self.machine.start(
            *before, *self.command(*arguments), environ=self.environ | self.moved, output=self.home / "output"
        )

    def keep_ticking(self, period: float, phase: float = 0.0) -> subprocess.Popen[str]:
        """Start the ticker: a tick every so many seconds, the first after `phase`."""
        command = (sys.executable, "-I", _TICKER, str(self.state), str(self.told), str(period), str(phase))
        return self.machine.start(*command, environ=self.environ | self.moved, output=self.home / "ticker")

    def ticks_told(self) -> list[dict[str, Any]]:
        """Tell what the ticker started and how it ended, in order."""
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def said(self) -> str:
        """Tell what its ticks and runners said last."""
        written = self.home / "ticker"
        return written.read_text()[-1500:] if written.exists() else ""

    def left(self) -> dict[int, str]:
        """Tell which processes work there, less the ticker and what it starts."""
        return {
            pid: command
            for pid, command in self.machine.commands().items()
            if _TICKER not in command and "orchestration.run_once" not in command
        }

    def waiting(self) -> list[str]:
        """Name the promotions and intents that lie there unanswered."""
        acked = {name.removesuffix("_ack.json") for name in _names(self.state / "promotions_ack", "_ack.json")}
        promotions = [name for name in _names(self.state / "promotions", ".json") if name.removesuffix(".json") not in acked]
        return promotions + _names(self.state / "intents", ".json")


def _names(folder: Path, suffix: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(suffix)) if folder.exists() else []
