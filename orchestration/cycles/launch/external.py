"""Starting nothing: something else runs the entries again and again, and finds what waits (design rule 8)."""

from __future__ import annotations

from orchestration.cycles.launch.port import ENTRIES
from orchestration.errors import Usage


class ExternalLauncher:
    """Leaves it to whoever runs `python -m orchestration.run_cycle` by itself."""

    def start(self, entry: str) -> None:
        """Check the name; see `Launcher`."""
        if entry not in ENTRIES:
            raise Usage(f"no entry {entry!r} can be started", hint=f"There are: {', '.join(ENTRIES)}")
