"""What an iteration of the loop costs above its bare command, whether memory stays flat, and how long a history may be.

    python tests/benchmarks/loop.py [ITERATIONS]

Goals (issue 3): at most 60 ms per iteration; flat memory over 1,000 iterations; 100,000 rows appended and read back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from orchestration.loop import records

TOP = Path(__file__).parents[2]


def main() -> None:
    """Measure and print."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        bare = _bare(number)
        looped, memory = _looped(Path(folder), number)
        print(f"bare command        {bare * 1000:8.2f} ms")
        print(f"iteration           {looped * 1000:8.2f} ms")
        print(f"overhead            {(looped - bare) * 1000:8.2f} ms per iteration, goal 60")
        print(f"memory              {memory[0]} kB after {number // 4}, {memory[1]} kB at the end")
        _history(Path(folder))


def _bare(number: int) -> float:
    began = time.monotonic()
    for _ in range(number):
        subprocess.run(["true"], check=True)
    return (time.monotonic() - began) / number


def _looped(folder: Path, number: int) -> tuple[float, tuple[int, int]]:
    environ = {**os.environ, "KLR_STATE_DIR": str(folder / "k"), "KLR_ORCHESTRATION_MODE": "enabled"}
    environ |= {"KLR_TEXTFILE": str(folder / "prom"), "PYTHONPATH": str(TOP)}
    flags = ["--command", "true", "--sleep", "0", "--iterations", str(number), "--json"]
    loop = subprocess.Popen(
        [sys.executable, "-m", "orchestration.run_loop", *flags],
        env=environ, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert loop.stdout is not None
    memory, stamps = [], []
    for line in loop.stdout:
        stamps.append(time.monotonic())
        if json.loads(line)["iteration"] in (number // 4, number - 1):
            memory.append(_resident(loop.pid))
    assert loop.wait() == 0
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1), (memory[0], memory[1])


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _history(folder: Path) -> None:
    """Append to a history of 100,000 rows as the loop does, and read it back."""
    path = folder / "history.jsonl"
    row = (folder / "state/run_cycle_history.jsonl").read_text().splitlines()[0]
    path.write_text(f"{row}\n" * 99_900)
    began = time.monotonic()
    for one in range(100):
        records.append_once(str(path), row.replace('"iteration": 1,', f'"iteration": {one + 2},'))
    appended = (time.monotonic() - began) / 100
    began = time.monotonic()
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    print(f"append to 100,000   {appended * 1000:8.2f} ms per row")
    print(f"read {len(rows)} rows   {time.monotonic() - began:8.2f} s")


if __name__ == "__main__":
    main()
