"""Finds and removes the temporary files of dead processes, wherever we write whole files.

The state folder and the textfile's are small and listed by every tick. Folders that may be large (100,000 acks) are
listed only when an entry came or went since they were last found clean, which their change time tells; the folder of a
cycle and what its hints are written to, as long as the cycle is not settled.
"""

from __future__ import annotations

import json
import os

from orchestration.cycles import ledger
from orchestration.host import files
from orchestration.tick.kernel import Kernel

_CLEAN = "litter.clean"  # fact: folder → its change time in ns when nothing of ours was in it
_SETTLED_NS = 1_000_000_000  # a change time this old can't be that of a later change as well


def sweep(kernel: Kernel) -> int:
    """Remove them all; return how many there were."""
    small = {kernel.settings.state_dir, os.path.dirname(kernel.settings.textfile), *_unsettled(kernel)}
    if kernel.shared is not None:
        small.add(kernel.shared.mirror.folder)
    return sum(files.sweep(folder, _names(folder)) for folder in small) + _sweep_changed(kernel)


def _unsettled(kernel: Kernel) -> list[str]:
    cycles = ledger.unsettled(kernel.db)
    if not cycles:
        return []
    from orchestration.cycles.artifacts import cycle_dir

    folders = [cycle_dir(kernel.settings.cycles_dir, cycle.cycle) for cycle in cycles]
    return [*folders, *(os.path.join(folder, "artifacts") for folder in folders), kernel.path("out")]  # hints: both


def _sweep_changed(kernel: Kernel) -> int:
    rows = kernel.db.rows("facts.get", name=_CLEAN)
    before: dict[str, int] = json.loads(str(rows[0]["value"])) if rows else {}
    clean, removed = {}, 0
    for folder in (kernel.settings.acks_dir, *map(kernel.path, ("baseline", "signals", "intents"))):
        changed = _changed_at(folder)
        if changed is None:
            continue
        if changed != before.get(folder):
            names = _names(folder)
            removed += files.sweep(folder, names)
            recent = kernel.now().timestamp() * 1e9 - changed < _SETTLED_NS
            if recent or any(name.endswith(".tmp") for name in names):
                continue
        clean[folder] = changed
    if clean != before:
        with kernel.db.transaction():
            kernel.db.run("facts.set", name=_CLEAN, value=json.dumps(clean))
    return removed


def _changed_at(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
