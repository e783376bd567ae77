"""What Slurm starts on a node: `python -P -m orchestration.cycles.slurm.step FOLDER`. Runs a cycle's command once.

The order lies in the folder, which the node shares with the host that submitted it; so do the two records that this leaves:
`began.json` before the command, `ended.json` after its whole tree has gone. The first is made exclusively. Who finds it
there, because a job was submitted twice or put back into Slurm's queue, runs nothing: a cycle's command is run at most once
(design rule 4).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orchestration.errors import KlorosError
from orchestration.exits import Exit
from orchestration.host import files, process
from orchestration.store.instants import from_text, to_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

ORDER: Final = "order.json"
BEGAN: Final = "began.json"
ENDED: Final = "ended.json"
_TOLD: Final = (
    "SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURMD_NODENAME", "SLURM_JOB_GPUS", "SLURM_RESTART_COUNT",
    "SLURM_CPUS_ON_NODE", "SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_NODE", "SLURM_GPUS_ON_NODE", "SLURM_JOB_NODELIST",
    # Which GPUs are its own: without control groups these alone keep it from its neighbour's (gres.conf(5)).
    "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK",
)  # fmt: skip
"""Variables of Slurm that are put on record, and that the command gets."""


class Order(NamedTuple):
    """What is to be run; times in seconds."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    output: str
    output_limit: int
    timeout: float
    grace: float


class Ended(NamedTuple):
    """What came of it; `failed` says why there is nothing to be said of the command."""

    completed: process.Completed | None
    failed: str = ""
    not_started: bool = False
    slurm: dict[str, str] = {}  # noqa: RUF012 - read only


def give(folder: str, order: Order) -> None:
    """Lay an order down, for its owner alone: its environment may hold secrets.

    Raises:
        Unwritable: it can't be.
    """
    files.make_folder(folder)
    files.replace(os.path.join(folder, ORDER), json.dumps(order._asdict()).encode(), 0o600)


def began(folder: str) -> dict[str, Any] | None:
    """Return the record of a step's beginning, None when there is none."""
    return _read(folder, BEGAN)


def ended(folder: str) -> Ended | None:
    """Return what came of a step; None while there is no record of it."""
    found = _read(folder, ENDED)
    if found is None:
        return None
    completed = found.pop("completed")
    return Ended(completed=None if completed is None else _completed(completed), **found)


def main(arguments: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """Carry out the order of a folder; returns 0 when its end is on record, whatever it was."""
    (folder,) = arguments
    slurm = {name: environ[name] for name in _TOLD if name in environ}
    if not files.create(os.path.join(folder, BEGAN), json.dumps(slurm).encode()):  # whole at once: others look meanwhile
        print(f"{folder} was begun before; its command is not run again", file=sys.stderr)
        return Exit.FAILED
    order = _order(folder)
    end = _run(order, slurm)
    told = {**end._asdict(), "completed": None if end.completed is None else _plain(end.completed)}
    files.replace(os.path.join(folder, ENDED), json.dumps(told).encode(), 0o600)
    return Exit.DONE


def _run(order: Order, slurm: dict[str, str]) -> Ended:
    asked: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, stop)
    try:
        completed = process.run(
            order.argv,
            env={**order.env, **slurm},
            cwd=order.cwd,
            output=order.output,
            output_limit=order.output_limit,
            timeout=timedelta(seconds=order.timeout),
            grace=timedelta(seconds=order.grace),
            should_stop=lambda: bool(asked),
        )
    except KlorosError as error:
        from orchestration.errors import CommandNotStarted

        return Ended(None, str(error), isinstance(error, CommandNotStarted), slurm)
    if asked and not completed.timed_out:
        # Slurm signals all processes of a job at once: the command may have ended of it before we could be asked to end it.
        completed = replace(completed, cancelled=True)
    return Ended(completed, slurm=slurm)


def _order(folder: str) -> Order:
    found = _read(folder, ORDER)
    if found is None:
        raise SystemExit(f"{folder}/{ORDER} is not there: does this node share the folder with the host that submitted it?")
    return Order(**{**found, "argv": tuple(found["argv"])})


def _read(folder: str, name: str) -> dict[str, Any] | None:
    with suppress(FileNotFoundError), open(os.path.join(folder, name), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
        return found
    return None


_SPANS: Final = ("wall", "cpu")
_INSTANTS: Final = ("started_at", "ended_at")


def _plain(completed: process.Completed) -> dict[str, Any]:
    values = asdict(completed)
    spans = {name: values[name].total_seconds() for name in _SPANS}
    return {**values, **spans, **{name: to_text(values[name]) for name in _INSTANTS}}


def _completed(plain: dict[str, Any]) -> process.Completed:
    spans = {name: timedelta(seconds=plain[name]) for name in _SPANS}
    instants = {name: from_text(plain[name]) for name in _INSTANTS}
    return process.Completed(**{**plain, **spans, **instants, "survivors": tuple(plain["survivors"])})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
