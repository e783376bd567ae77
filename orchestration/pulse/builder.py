"""Writes the page as one file, and the document it shows: `index.html` and `data/dashboard.json`, each whole at any moment.

    python -m orchestration.pulse.builder --out DIR [--cycles DIR]

is `klorosctl pulse build` under the name that scripts know. `index.html` is all there is: style, script and charts stand
in it, so it can be mailed, archived or opened from disk. What it has no room for (one cycle, one tick), the commands on it
show; the served page has pages for that.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Sequence
from typing import NamedTuple

from orchestration.host import files
from orchestration.pulse import document
from orchestration.pulse.dashboard import pages
from orchestration.pulse.dashboard.place import FILE
from orchestration.pulse.loop_health import LoopHealth

CYCLES = 300
"""Newest cycles in the document: what a day of a busy loop has, and a trend to look at."""
FAILURES = 5
_PRIVATE = 0o600  # it shows what commands wrote


class Built(NamedTuple):
    """One file that was written."""

    path: str
    size: int  # bytes


def build(health: LoopHealth, folder: str) -> tuple[Built, ...]:
    """Write both files below `folder`, made if absent; each takes the place of the one before in one step.

    A file that is there keeps its permissions, so that giving it to a web server once is enough.

    Raises:
        KlorosError: jinja2 is not installed.
        Unwritable: the folder can't be written.
    """
    page = pages.overview(health, FILE).encode()
    data = json.dumps(document.as_json(health), separators=(",", ":")).encode()
    folder = os.path.abspath(folder)
    # The document first: who sees the new page finds the data that it was made of.
    return (_put(os.path.join(folder, "data", "dashboard.json"), data), _put(os.path.join(folder, "index.html"), page))


def _put(path: str, content: bytes) -> Built:
    files.make_folder(os.path.dirname(path), mode=0o755)
    files.replace(path, content, mode=_mode(path), durable=False)
    return Built(path, len(content))


def _mode(path: str) -> int:
    try:
        return stat.S_IMODE(os.stat(path).st_mode) & 0o666
    except OSError:
        return _PRIVATE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the entry; returns the exit status."""
    from orchestration import klorosctl

    return klorosctl.main(["pulse", "build", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
