"""What one look at Pulse costs in a store of years against one of a day: `python tests/benchmarks/survey.py [FOLDER]`.

Each figure is the median of 15 looks, wall time in this process; the stores take turns. Works in a new folder under FOLDER
(default: the temporary folder), and removes it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from orchestration import configuration
from orchestration.cycles.cycle import CycleState, JobName
from orchestration.host import clock
from orchestration.pulse.records import calendar_view, cycle_detail, cycle_page, tick_detail
from orchestration.pulse.survey import survey
from orchestration.pulse.views import CycleOrder, CycleQuery
from orchestration.settings import Settings
from orchestration.store.sqlite import SqliteDatabase

RUNS = 15
HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = ((1440, 1_000), (1_000_000, 100_000))  # ticks, cycles
GOAL_MS, GOAL_RATIO = 60.0, 4.0


def main() -> None:
    """Measure and print; exit 1 where a look takes longer than it may."""
    with tempfile.TemporaryDirectory(prefix="kloros-benchmark-", dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        worlds = [_world(os.path.join(folder, str(number)), *sizes) for number, sizes in enumerate(SIZES)]
        print("| look | 1,440 ticks, 1,000 cycles | 1,000,000 ticks, 100,000 cycles | ratio |\n|---|---|---|---|")
        slow = False
        for name in LOOKS:
            small, large = _compare(name, worlds)
            print(f"| {name} | {small:.1f} ms | {large:.1f} ms | {large / small:.1f} |")
            slow |= name == "survey" and (large > GOAL_MS or large / small > GOAL_RATIO)
    sys.exit(slow)


def _world(folder: str, ticks: int, cycles: int) -> tuple[Settings, SqliteDatabase]:
    os.makedirs(folder)
    path = os.path.join(folder, "kloros.db")
    SqliteDatabase(path).close()
    subprocess.run([sys.executable, os.path.join(HERE, "big_store.py"), path, str(ticks), str(cycles)], check=True)
    environ = {"KLR_STATE_DIR": folder, "KLR_CONFIG": "/dev/null", "KLR_ORCHESTRATION_MODE": "enabled"}
    return configuration.load(environ), SqliteDatabase(path, read_only=True)


LOOKS: dict[str, Callable[[Settings, SqliteDatabase], object]] = {
    "survey": lambda settings, db: survey(settings, db, clock.now(), boot_id="b" * 36),
    "cycles, newest": lambda _, db: cycle_page(db, CycleQuery()),
    "cycles, one job, none of the state": lambda _, db: cycle_page(
        db, CycleQuery(job=JobName.PHASE, state=CycleState.CANCELLED)
    ),
    "cycles, longest": lambda _, db: cycle_page(db, CycleQuery(order=CycleOrder.LONGEST)),
    "cycles, a text that none has": lambda _, db: cycle_page(db, CycleQuery(text="no cycle says this")),
    "one cycle": lambda settings, db: cycle_detail(settings, db, 500),
    "one tick": lambda _, db: tick_detail(db, "700"),
    "calendar": lambda settings, db: calendar_view(settings, db, clock.now()),
}


def _compare(name: str, worlds: list[tuple[Settings, SqliteDatabase]]) -> list[float]:
    """Return the median of each store's looks, in ms."""
    taken: list[list[float]] = [[] for _ in worlds]
    for _ in range(RUNS):
        for (settings, db), times in zip(worlds, taken, strict=True):
            began = time.perf_counter()
            LOOKS[name](settings, db)
            times.append((time.perf_counter() - began) * 1000)
    return [statistics.median(times) for times in taken]


if __name__ == "__main__":
    main()
