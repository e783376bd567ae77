"""The manifest of a cycle: everything the store knows of it, as one JSON document for people and other programs.

Made from the store alone, so the same rows give the same bytes whoever writes it, and a tick can write one that is missing.
docs/reference/manifest.md explains each field.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from orchestration.cycles.cycle import Cycle, Executor, Result
from orchestration.store.instants import to_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from orchestration.cycles.inventory import File
    from orchestration.cycles.products import Products

SCHEMA: Final = "v1"
_USED: Final = ("wall_seconds", "cpu_seconds", "peak_bytes")


def to_bytes(cycle: Cycle, products: Products) -> bytes:
    """Write the manifest."""
    return json.dumps(document(cycle, products), indent=2).encode() + b"\n"


def document(cycle: Cycle, products: Products) -> dict[str, object]:
    """Return the manifest's content; null is what is not known."""
    runner = _runner(cycle.runner)
    return {
        "schema": SCHEMA,
        "cycle": cycle.cycle,
        "job": cycle.job,
        "state": cycle.state,
        "origin": cycle.origin.told(),
        "command": list(cycle.command),
        "working_dir": cycle.working_dir,
        "environment": products.environment,
        "revision": products.revision,
        "timeout_seconds": cycle.timeout.total_seconds(),
        "phase_date": None if cycle.phase_date is None else cycle.phase_date.isoformat(),
        "queued_at": to_text(cycle.queued_at),
        "started_at": _text(cycle.started_at),
        "ended_at": _text(cycle.ended_at),
        "host": runner.get("host") if cycle.executor is Executor.SLURM else cycle.host or runner.get("host"),
        "boot_id": runner.get("boot_id"),
        "slurm": runner.get("slurm"),
        "runner": cycle.runner,
        "result": _result(cycle.result),
        "resources": {name: None if cycle.result is None else getattr(cycle.result, name) for name in _USED},
        "artifacts": _listed(products, _is_artifact),
        "telemetry": _listed(products, is_telemetry),
        "logs": _listed(products, _is_log),
        "others": _listed(products, lambda path: not (_is_artifact(path) or is_telemetry(path) or _is_log(path))),
        "files_omitted": None if products.left is None else products.left.omitted,
    }


def is_telemetry(path: str) -> bool:
    """Tell whether a file of the folder is telemetry: `logs/*.jsonl`."""
    return path.startswith("logs/") and path.count("/") == 1 and path.endswith(".jsonl")


def _is_log(path: str) -> bool:
    return path.startswith("logs/") and not is_telemetry(path)


def _is_artifact(path: str) -> bool:
    return path.startswith("artifacts/")


def _listed(products: Products, belongs: Callable[[str], bool]) -> list[dict[str, Any]] | None:
    if products.left is None:
        return None
    files: tuple[File, ...] = products.left.files
    return [file._asdict() for file in files if belongs(file.path)]


def _result(result: Result | None) -> dict[str, object] | None:
    return None if result is None else {name: value for name, value in result._asdict().items() if name not in _USED}


def _runner(record: str | None) -> dict[str, Any]:
    """Read the runner's record of itself; nothing of one that was written otherwise."""
    try:
        found = json.loads(record or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else to_text(instant)
