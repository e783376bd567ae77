"""Processes under another clock, by libfaketime (Debian package faketime).

The library itself, not its command: that makes a semaphore named by its pid, which a killed one leaves behind, and which
stops the next process of that pid.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.acceptance.host import Host

_PLACES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")


def library() -> str:
    """Return the library's path."""
    found = [str(path) for place in _PLACES for path in Path("/").glob(place.lstrip("/"))]
    assert found, "libfaketime is missing: apt-get install faketime"
    return found[0]


def run_at(host: Host, offset: str, entry: str = "run_once") -> None:
    """Run an entry, which must succeed, under a clock of this offset: `-8d`, or `+0 x600` for one that is quicker."""
    moved = {"LD_PRELOAD": library(), "FAKETIME": offset}
    done = subprocess.run(
        host.command(entry), env=os.environ | host.environ | moved, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
