"""Starting an entry through systemd: a file in `kick/`, which a path unit watches.

No polkit, no root, no D-Bus: `kloros-cycle.path`, `kloros-orchestrator.path` and `kloros-notice.path` see the file
and start their service, which takes it away. A file that is already there is the same request.
"""

from __future__ import annotations

import os
from typing import Final

from orchestration.errors import Usage
from orchestration.host.files import unwritable

KICKS: Final = {"run_cycle": "cycle", "run_once": "tick", "run_notice": "notice"}


class SystemdLauncher:
    """Leaves kicks in a folder that path units watch."""

    def __init__(self, kick_dir: str) -> None:
        self._kick_dir = kick_dir

    def start(self, entry: str) -> None:
        """Leave the kick; see `Launcher`."""
        if entry not in KICKS:
            raise Usage(f"no entry {entry!r} can be started", hint=f"There are: {', '.join(KICKS)}")
        path = os.path.join(self._kick_dir, KICKS[entry])
        try:
            # Opened for writing, so that its closing is an event for PathChanged= too (systemd.path(5)).
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise unwritable(path, error) from error
