"""What a quiet tick costs, as ratios measured in one run: `python tests/benchmarks/tick.py [FOLDER]`.

Each figure is the median of 15 runs of CPU seconds (user and system, from wait4). The two sides of a ratio take turns,
so that a machine that slows down slows both. Nothing is tuned here: the tick runs as the timer runs it.
Works in a new folder under FOLDER (default: the temporary folder), and removes it.
"""

from __future__ import annotations

import compileall
import json
import os
import platform
import py_compile
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

RUNS = 15
PROMOTIONS, INTENTS, TICKS, CYCLES = 100_000, 1_000, 1_000_000, 100_000
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


class Side(NamedTuple):
    """One side of a ratio: a command and its environment."""

    command: tuple[str, ...]
    environ: dict[str, str]


class Cost(NamedTuple):
    """What runs of one side cost: median CPU in seconds, largest peak in KiB."""

    cpu: float
    peak: int


def main() -> None:
    """Measure and print."""
    compileall.compile_dir(os.path.join(ROOT, "orchestration"), quiet=1)  # as pip does when it installs
    folder = tempfile.mkdtemp(prefix="kloros-benchmark-", dir=sys.argv[1] if len(sys.argv) > 1 else None)
    try:
        print(_machine())
        print("\n| measured | against | CPU | against | ratio | goal |\n|---|---|---|---|---|---|")
        _report(folder)
    finally:
        shutil.rmtree(folder)


def _report(folder: str) -> None:
    tick, idle = _idle(folder), Side((sys.executable, "-I", "-c", "pass"), _environ(folder))
    bare = _bare(folder)
    quiet, nothing, script = _compare([tick, idle, bare])
    _row("NOOP tick", "`python -I -c pass`", quiet.cpu, nothing.cpu, "≤ 5")
    _row("NOOP tick", "the same as a bare script", quiet.cpu, script.cpu, "")
    _row("the bare script", "`python -I -c pass`", script.cpu, nothing.cpu, "")
    many, passes, few, no_passes = _compare(_promotions(folder, "many", PROMOTIONS) + _promotions(folder, "few", 0))
    _row(f"tick with {PROMOTIONS:,} acked promotions", "two scandir passes", many.cpu, passes.cpu, "≤ 1.5")
    _row("what they add to a tick", "what they add to the passes", many.cpu - few.cpu, passes.cpu - no_passes.cpu, "≤ 1.5")
    sides = [_big(folder, "big"), _big(folder, "backlog", "--backlog"), _tick(os.path.join(folder, "empty"))]
    big, backlog, empty = _compare(sides)
    _row(f"tick with {TICKS:,} ticks and {CYCLES:,} cycles", "an empty store", big.cpu, empty.cpu, "≤ 1.2")
    _row("the same, while it prunes a backlog of cycles", "an empty store", backlog.cpu, empty.cpu, "")
    peak = max(cost.peak for cost in (quiet, many, big, backlog)) / 1024
    print(f"\nPeak memory of a tick: {peak:.1f} MiB (goal ≤ 60), the largest of all the above.")


def _compare(sides: Sequence[Side]) -> list[Cost]:
    """Run the sides in turns; the first round warms caches and snapshots and does not count."""
    costs: list[list[tuple[float, int]]] = [[] for _ in sides]
    for round_ in range(RUNS + 1):
        for side, of_side in zip(sides, costs, strict=True):
            used = _run(side)
            if round_:
                of_side.append(used)
    return [Cost(statistics.median(cpu for cpu, _ in one), max(peak for _, peak in one)) for one in costs]


def _run(side: Side) -> tuple[float, int]:
    quiet = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1, 2)]
    pid = os.posix_spawn(side.command[0], side.command, side.environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{side.command} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def _row(what: str, against: str, cpu: float, other: float, goal: str) -> None:
    print(f"| {what} | {against} | {cpu * 1e3:.1f} ms | {other * 1e3:.1f} ms | {cpu / other:.2f} | {goal} |", flush=True)


def _machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(": ")[2].strip() for line in file if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    python = f"Python {platform.python_version()}"
    return f"{python}, Linux {platform.release()}, {os.cpu_count()} × {model}, {memory:.0f} GiB, load {load}."


def _environ(state_dir: str) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "KLR_STATE_DIR": state_dir,
        "KLR_ORCHESTRATION_MODE": "enabled",
        "KLR_TEXTFILE": os.path.join(state_dir, "kloros.prom"),
        "KLR_PHASE_WINDOW_OPENS": "00:00",  # outside on every run: one minute in Kiritimati, which no test should meet
        "KLR_PHASE_WINDOW_CLOSES": "00:01",
        "KLR_PHASE_TIME_ZONE": "Pacific/Kiritimati",
    }


def _tick(state_dir: str) -> Side:
    os.makedirs(state_dir, exist_ok=True)
    return Side((sys.executable, "-m", "orchestration.run_once"), _environ(state_dir))


def _idle(folder: str) -> Side:
    return _tick(os.path.join(folder, "quiet"))


def _bare(folder: str) -> Side:
    state_dir = os.path.join(folder, "bare")
    for name in ("locks", "promotions", "promotions_ack", "intents"):
        os.makedirs(os.path.join(state_dir, name))
    with open(os.path.join(state_dir, "settings.json"), "w", encoding="utf-8") as file:
        json.dump({"mode": "enabled", "window": ["03:00", "07:00"], "zone": "America/New_York"}, file)
    compiled = os.path.join(folder, "bare_tick.pyc")  # as our modules are
    py_compile.compile(os.path.join(HERE, "bare_tick.py"), cfile=compiled, doraise=True)
    command = (sys.executable, "-I", compiled, state_dir, os.path.join(state_dir, "kloros.prom"))
    return Side(command, _environ(state_dir))


def _promotions(folder: str, name: str, number: int) -> list[Side]:
    """Make a state folder with so many acked promotions, and with its share of processed intents."""
    state_dir = os.path.join(folder, name)
    tick = _tick(state_dir)
    promotions, acks, processed = (
        os.path.join(state_dir, part) for part in ("promotions", "promotions_ack", "intents/processed/processed")
    )
    for path in (promotions, acks, processed):
        os.makedirs(path)
    for index in range(number):
        stem = f"promotion_{index:06d}_{index * 2654435761 % 2**32:08x}"
        for path in (f"{promotions}/{stem}.json", f"{acks}/{stem}_ack.json"):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    for index in range(INTENTS if number else 0):
        os.close(os.open(f"{processed}/17000000{index:05d}_suggest_x_{index:08x}.json", os.O_CREAT | os.O_WRONLY, 0o600))
    passes = (sys.executable, "-I", os.path.join(HERE, "two_passes.py"), promotions, acks)
    return [tick, Side(passes, tick.environ)]


def _big(folder: str, name: str, *options: str) -> Side:
    """Fill a store, in another process so that ours stays small: a child's peak counts its parent's (getrusage(2))."""
    state_dir = os.path.join(folder, name)
    tick = _tick(state_dir)
    _run(tick)
    fill = [sys.executable, os.path.join(HERE, "big_store.py"), f"{state_dir}/kloros.db", str(TICKS), str(CYCLES)]
    subprocess.run([*fill, *options], check=True)
    os.unlink(f"{state_dir}/history.jsonl")  # rotated away; with it, each tick would first write 1,000 of these ticks
    return tick


if __name__ == "__main__":
    main()
