"""Puts the metrics where node_exporter's textfile collector finds them.

Metrics are no reason for a tick to fail: what keeps them from being written is told once, remembered in the store, and
told again when it is something else, or the same after they could be written in between.
The folder is node_exporter's to make; an absent one means that none is installed.
"""

from __future__ import annotations

import os
from typing import cast

from orchestration.errors import Unwritable
from orchestration.host import files
from orchestration.host.journal import Event, Priority, log
from orchestration.store.port import Database

_FAULT = "textfile.fault"
_MODE = 0o644  # node_exporter reads it as another user


def write(db: Database, path: str, text: str) -> None:
    """Put the text in place, or note and tell why not. Must run inside a transaction."""
    fault = _try(path, text)
    known = db.rows("facts.get", name=_FAULT)
    if fault == (cast("str", known[0]["value"]) if known else ""):
        return
    db.run("facts.set", name=_FAULT, value=fault)
    if fault:
        message = f"no metrics: {fault} (told once; install prometheus-node-exporter, or set textfile)"
        log(Event.TEXTFILE_MISSING, message, priority=Priority.WARNING, path=path)


def _try(path: str, text: str) -> str:
    """Return what is in the way, empty when the file is written."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return f"there is no folder {folder}"
    try:
        files.replace(path, text.encode(), mode=_MODE, durable=False)
    except Unwritable as error:
        return error.message
    except OSError as error:  # one that no advice is known for
        return f"{path} can't be written: {error.strerror or error}"
    return ""
