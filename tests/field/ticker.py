"""What starts ticks and runners on a host of the field, as the timer and the path units do.

`ticker.py STATE TOLD PERIOD PHASE`: a tick every PERIOD seconds, never two at once; another after a kick; a runner, never
two at once, as long as there is a kick. A tick that takes longer than its unit lets it (TimeoutStartSec) is killed. A line
of JSON in TOLD for each process when it has ended. Ends by being killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TextIO

_PATIENCE = 50.0  # kloros-orchestrator.service: TimeoutStartSec


class Unit:
    """One unit: an entry that is started when it is time, and not before it has ended."""

    def __init__(self, entry: str, kick: str, told: TextIO, patience: float | None) -> None:
        self._entry = entry
        self._kick = kick
        self._told = told
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def look(self, *, is_due: bool) -> bool:
        """Collect what has ended, start what is due or kicked; True when started."""
        if self._process is not None and not self._has_ended(self._process):
            return False
        kicked = os.path.exists(self._kick)
        if not (is_due or kicked):
            return False
        with suppress(FileNotFoundError):
            os.unlink(self._kick)
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"orchestration.{self._entry}"], stdin=subprocess.DEVNULL, start_new_session=True
        )
        return True

    def _has_ended(self, process: subprocess.Popen[bytes]) -> bool:
        code = process.poll()
        took = time.monotonic() - self._began
        if code is None:
            if self._patience is not None and took > self._patience:
                os.killpg(process.pid, signal.SIGKILL)
            return False
        print(json.dumps({"entry": self._entry, "code": code, "at": time.time(), "took": took}), file=self._told, flush=True)
        self._process = None
        return True


def main() -> None:
    state, told_path, period, phase = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    with open(told_path, "a", encoding="utf-8") as told:
        tick = Unit("run_once", f"{state}/kick/tick", told, _PATIENCE)
        runner = Unit("run_cycle", f"{state}/kick/cycle", told, None)
        due = time.monotonic() + phase
        while True:
            if tick.look(is_due=time.monotonic() >= due):
                due = max(due, time.monotonic() - period) + period
            runner.look(is_due=False)
            select.select([], [], [], 0.02)


if __name__ == "__main__":
    main()
