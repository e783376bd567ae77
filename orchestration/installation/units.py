"""What an installation asks of its systemd: which units are at work, which to stop, which to take up anew."""

from __future__ import annotations

import glob
import os
import subprocess
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orchestration.installation.files import WATCHING

_SERVING = ("kloros-pulse.service", "kloros-bridge.service", "kloros-supervisor.service")  # at work all day, on the store


class Units(NamedTuple):
    """The units of one manager: the host's, or one person's."""

    folder: str  # where their files are
    user: bool

    def existing(self, units: Iterable[str]) -> list[str]:
        """Keep those that have a file."""
        return [unit for unit in units if os.path.lexists(os.path.join(self.folder, unit))]

    def active(self, units: Sequence[str]) -> list[str]:
        """Keep those that are at work, beginning or ending."""
        return self._in_state(units, "active", "activating", "deactivating")

    def at_work(self) -> list[str]:
        """Name our units that start others or serve, and do or are about to."""
        names = [os.path.basename(path) for path in glob.glob(os.path.join(self.folder, "kloros-*"))]
        names = [name for name in names if name.endswith(WATCHING) or name in _SERVING]
        return sorted(self._in_state(names, "active", "activating"))

    def _in_state(self, units: Sequence[str], *states: str) -> list[str]:
        said = self.systemctl("is-active", *units)[1].split() if units else []
        return [unit for unit, state in zip(units, said, strict=False) if state in states]

    def stop_for_good(self, units: Sequence[str]) -> None:
        """Stop them, now and at the next boot."""
        if units:
            self.systemctl("stop", *units)
            self.systemctl("disable", "--quiet", *units)

    def take_up(self, changed: Sequence[str]) -> None:
        """Let those that are at work go on as their files are now; what serves, also where its own is the same."""
        self.systemctl("daemon-reload")
        if again := [*changed, *self.existing(_SERVING)]:
            self.systemctl("try-restart", *again)

    def forget(self) -> None:
        """Let systemd forget our units, whose files are gone."""
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed", "kloros-*")

    def systemctl(self, *arguments: str) -> tuple[int, str]:
        """Ask systemd; what it can't do where it does not run is done at the next boot."""
        environ = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ}
        command = ["systemctl", *(("--user",) if self.user else ()), "--no-pager", *arguments]
        try:
            done = subprocess.run(
                command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        except OSError as error:
            return 127, str(error)
        return done.returncode, (done.stdout or done.stderr).strip()
